package pull_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// The hosts of the registries. A table names those of reg.test; none names those of any.test.
const (
	hubHost                                = "registry-1.docker.io"
	namedHost, namedCAHost, namedPlainHost = "reg.test", "ca.reg.test", "plain.reg.test"
	anyHost, anyCAHost, anyPlainHost       = "any.test", "ca.any.test", "plain.any.test"
	anyLoginHost                           = "login.any.test" // for which sidemirror has a login
)

// Whose repositories are public, and whose are private.
const publicUser, privateUser = "acme", "alice"

// registries are what stands for the registries of the internet and of a company.
type registries struct {
	private, public *registry.Registry // Docker Hub, reg.test and any.test have both kinds of repositories
	ca, plain       *registry.Registry // that no host trusts by its system, and that has no TLS
	trusted         string             // the path of the authority that every host trusts by its system
	hosts           string             // /etc/hosts
}

// column is a registry, and how it is protected.
type column struct {
	name, access string
	host, user   string
	from         func(r *registries) *registry.Registry
}

// Docker Hub can have neither an authority of its own nor plain HTTP.
var columns = []column{
	{"Docker Hub", "public", "docker.io", publicUser, (*registries).openOne},
	{"Docker Hub", "private", "docker.io", privateUser, (*registries).privateOne},
	{"named", "public", namedHost, publicUser, (*registries).openOne},
	{"named", "private", namedHost, privateUser, (*registries).privateOne},
	{"named", "private CA", namedCAHost, publicUser, (*registries).caOne},
	{"named", "plain HTTP", namedPlainHost, publicUser, (*registries).plainOne},
	{"other", "public", anyHost, publicUser, (*registries).openOne},
	{"other", "private", anyLoginHost, privateUser, (*registries).privateOne},
	{"other", "private CA", anyCAHost, publicUser, (*registries).caOne},
	{"other", "plain HTTP", anyPlainHost, publicUser, (*registries).plainOne},
}

func (r *registries) openOne() *registry.Registry    { return r.public }
func (r *registries) privateOne() *registry.Registry { return r.private }
func (r *registries) caOne() *registry.Registry      { return r.ca }
func (r *registries) plainOne() *registry.Registry   { return r.plain }

// startRegistries starts the registries.
func startRegistries(t *testing.T) *registries {
	t.Helper()
	front, ca, plain := network.Address4(t, 443), network.Address4(t, 443), network.Address4(t, 80)
	r := &registries{
		private: registry.Start(t, registry.Options{Private: true}),
		public:  registry.Start(t, registry.Options{}),
		ca:      registry.Start(t, registry.Options{Address: ca, Names: []string{namedCAHost, anyCAHost, ipOf(ca)}}),
		plain:   registry.Start(t, registry.Options{Address: plain}),
	}
	const tokens = "auth.docker.io"
	authority := registry.StartFront(t, &registry.Front{Private: r.private, Public: r.public, Realm: func(host string) string {
		if host == hubHost {
			return "https://" + tokens
		}
		return "https://" + host
	}}, front, []string{hubHost, tokens, namedHost, anyHost, anyLoginHost})
	r.trusted = authority
	r.hosts = "127.0.0.1 localhost\n"
	for address, names := range map[string][]string{
		front: {hubHost, tokens, namedHost, anyHost, anyLoginHost}, ca: {namedCAHost, anyCAHost}, plain: {namedPlainHost, anyPlainHost},
	} {
		r.hosts += ipOf(address) + " " + strings.Join(names, " ") + "\n"
	}
	return r
}

// configuration is that of sidemirror on each host. It has a login for the private repositories, and
// registry."*" is on by default.
const configuration = `[credentials]
files = ["` + loginsFile + `"]

[trust]
units = ["*"]

[log]
level = "debug"

[registry."` + namedHost + `"]

[registry."` + namedCAHost + `"]
ca = "` + authorityFile + `"

[registry."` + namedPlainHost + `"]
upstreams = ["http://` + namedPlainHost + `"]
`

const (
	// authorityFile is where a host has the authority that it does not trust by its system.
	authorityFile = "/etc/company-ca.pem"
	// loginsFile has the logins of sidemirror alone.
	loginsFile = "/etc/sidemirror/logins.json"
)

// logins is the file with the logins that sidemirror has.
func (r *registries) logins(t *testing.T) string {
	t.Helper()
	auths := make(map[string]any)
	for _, host := range []string{"https://index.docker.io/v1/", namedHost, anyLoginHost} {
		auths[host] = map[string]string{"username": r.private.User, "password": r.private.Password}
	}
	text, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func ipOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return host
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// newHost makes a host of some engines, which have the settings that they need for the registries with
// an authority of their own and without TLS, and for no private one. Docker's for plain HTTP is a
// hosts.toml, which it reads from 28 on: with insecure-registries it would pull from all registries but
// the named ones directly.
func (r *registries) newHost(t *testing.T, age engine.Generation) *engine.Host {
	t.Helper()
	files := map[string]string{
		"/etc/hosts":                  r.hosts,
		"/etc/sidemirror/config.toml": configuration,
		loginsFile:                    r.logins(t),
		authorityFile:                 readFile(t, r.ca.CA),
		"/etc/containerd/config.toml": "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
		"/etc/docker/daemon.json":     "{}\n",
		"/etc/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
		"/etc/containers/storage.conf": "[storage]\ndriver = \"vfs\"\n" +
			"graphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n",
		// sidemirror knows from the name of this file that it has a login.
		"/var/lib/sidemirror-logins/registry-" + anyLoginHost + ".elsewhere": "",
	}
	if age == engine.Sid {
		files["/etc/docker/daemon.json"] = `{"features": {"containerd-snapshotter": true}}` + "\n"
	}
	var insecure, buildkit strings.Builder
	for _, host := range []string{namedCAHost, anyCAHost} {
		for _, folder := range []string{"containerd", "docker", "containers"} {
			files["/etc/"+folder+"/certs.d/"+host+"/ca.crt"] = readFile(t, r.ca.CA)
		}
		fmt.Fprintf(&buildkit, "[registry.%q]\n  ca = [%q]\n", host, authorityFile)
	}
	for _, host := range []string{namedPlainHost, anyPlainHost} {
		for _, folder := range []string{"containerd", "docker"} {
			files["/etc/"+folder+"/certs.d/"+host+"/hosts.toml"] = fmt.Sprintf("server = \"http://%s\"\n\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", host)
		}
		fmt.Fprintf(&insecure, "[[registry]]\nprefix = %q\nlocation = %[1]q\ninsecure = true\n", host)
		fmt.Fprintf(&buildkit, "[registry.%q]\n  http = true\n", host)
	}
	files["/etc/containers/registries.conf"] = insecure.String()
	if age == engine.BuildKit {
		files["/etc/buildkit/buildkitd.toml"] = buildkit.String()
	}
	h := engine.StartHost(t, engine.HostOptions{Generation: age, Files: files, CA: r.trusted, Program: harness.Binary(t)})
	if err := os.Chmod(h.Path(loginsFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// way pulls a new image and returns which way that went: "through" sidemirror alone, "straight" from the
// registry, or "refused", if the engine asks the registry itself and has no login or setting for it.
func (r *registries) way(t *testing.T, sidemirror *process.Daemon, c column, repository string, pull func(reference, digest string) error) string {
	t.Helper()
	from := c.from(r)
	repository = c.user + "/" + repository
	image := from.Push(t, repository, "v1", registry.Shape{Index: true, Size: 1 << 14})
	path := "/v2/" + repository + "/"
	before, _ := from.Requests(path)
	err := pull(c.host+"/"+repository, image.Digest)
	all, ours := from.Requests(path)
	others := all - ours - before
	switch {
	case err != nil && ours == 0:
		t.Logf("%s: %v", repository, err)
		return "refused"
	case err != nil:
		t.Errorf("%s: %v", repository, err)
	case ours == 0 && others > 0:
		return "straight"
	case ours >= 1 && others == 0:
		if lines := accessLines(sidemirror.Output(), repository); lines < len(image.Platform) {
			t.Errorf("sidemirror's access log has %d lines about %s, which has %d parts", lines, repository, len(image.Platform))
		}
		return "through"
	}
	return fmt.Sprintf("%d past", others)
}

// row is one line of the table of docs/engines.md: an engine, and the way of a pull in each column.
type row []string

func (r row) String() string { return "| " + strings.Join(r, " | ") + " |" }

// documented are the rows of docs/engines.md that describe where pulls go, by the engine's name.
func documented(t *testing.T) map[string]row {
	const page = "../../docs/engines.md"
	t.Helper()
	_, text, found := strings.Cut(readFile(t, page), "## Which way each pull goes\n")
	if !found {
		t.Fatalf("%s has no section about the ways of pulls", page)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows := make(map[string]row)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == len(columns)+1 {
			rows[cells[0]] = cells
		}
	}
	return rows
}

// compare compares rows that were seen with those of the documentation.
func compare(t *testing.T, seen []row) {
	t.Helper()
	pages := documented(t)
	through, past := 0, 0
	for _, r := range seen {
		if page := pages[r[0]]; !slices.Equal(page, r) {
			t.Errorf("docs/engines.md has\n%s\nand the pulls went\n%s", page, r)
		}
		for _, cell := range r[1:] {
			if cell == "through" {
				through++
			} else {
				past++
			}
		}
	}
	t.Logf("%d engines, %d cells: %d through sidemirror without a request past it, %d another way", len(seen), through+past, through, past)
}
