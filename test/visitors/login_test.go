package visitors

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// machine is another host, on which the site's name leads here and its certificate is trusted.
type machine struct {
	r   *rig
	dir string
}

func (r *rig) newMachine() *machine {
	r.t.Helper()
	engine.NeedRoot(r.t)
	dir, err := os.MkdirTemp("", "sm-visit-") // a socket in it may not have a long path
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			r.t.Errorf("an engine left something behind: %v", err)
		}
	})
	m := &machine{r, dir}
	m.write("hosts", "127.0.0.1 localhost\n"+gateway+" "+siteName+"\n")
	m.write("policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	m.write("daemon.json", "{}")
	if err := os.Mkdir(m.path(".docker"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	// With a login in the file, docker does not look for a credential helper.
	m.write(".docker/config.json", `{"auths": {"other.example": {"auth": "YTpi"}}}`)
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) {
	m.r.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		m.r.t.Fatal(err)
	}
}

// command returns a command line on the machine.
func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := slices.Concat(m.r.guest.Command(), []string{"sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, m.path("hosts"), process.Path(m.r.t, name)}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + m.dir, "SSL_CERT_FILE=" + m.r.ca, "DOCKER_HOST=unix://" + m.path("d.sock"),
		"REGISTRY_AUTH_FILE=" + m.path("auth.json"), "TMPDIR=" + m.dir,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// run runs a program on the machine, which gets input.
func (m *machine) run(input, name string, args ...string) error {
	cmd := m.command(m.r.t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// start starts a daemon on the machine, and waits for its socket.
func (m *machine) start(socket, name string, args ...string) {
	m.r.t.Helper()
	process.Start(m.r.t, name, m.command(context.WithoutCancel(m.r.t.Context()), name, args...), func(string) error {
		info, err := os.Stat(m.path(socket))
		if err == nil && info.Mode()&os.ModeSocket == 0 {
			err = errors.New("no socket")
		}
		return err
	})
}

func (m *machine) startDocker() {
	m.r.t.Helper()
	m.start("d.sock", "dockerd", "--config-file", m.path("daemon.json"), "--data-root", m.path("d-root"), "--exec-root", m.path("d-exec"),
		"--pidfile", m.path("d.pid"), "-H", "unix://"+m.path("d.sock"), "--iptables=false", "--ip6tables=false", "--bridge=none")
	m.r.Eventually("dockerd responds", func() bool { return m.run("", "docker", "version") == nil })
}

func (m *machine) startContainerd() {
	m.r.t.Helper()
	m.start("c.sock", "containerd", "--address", m.path("c.sock"), "--root", m.path("c-root"), "--state", m.path("c-state"))
}

// podman runs podman with a storage of its own.
func (m *machine) podman(input string, args ...string) error {
	return m.run(input, "podman", append([]string{
		"--root", m.path("p-root"), "--runroot", m.path("p-run"), "--tmpdir", m.path("p-tmp"), "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none",
	}, args...)...)
}

// clients log in and pull. Each may be refused in between.
var clients = []struct {
	name          string
	begin         func(m *machine)
	logIn, logOut func(m *machine, password string) error
	pull          func(m *machine, password, reference string) error
}{
	{
		name:  "docker",
		begin: (*machine).startDocker,
		logIn: func(m *machine, password string) error {
			return m.run(password, "docker", "login", "-u", ann, "--password-stdin", siteName)
		},
		logOut: func(m *machine, _ string) error { return m.run("", "docker", "logout", siteName) },
		pull: func(m *machine, _, reference string) error {
			return m.run("", "docker", "pull", "--quiet", reference)
		},
	},
	{
		name:  "containerd",
		begin: (*machine).startContainerd,
		pull: func(m *machine, password, reference string) error {
			args := []string{"--address", m.path("c.sock"), "images", "pull", "--snapshotter", "native"}
			if password != "" {
				args = append(args, "--user", ann+":"+password)
			}
			return m.run("", "ctr", append(args, reference)...)
		},
	},
	{
		name: "podman",
		logIn: func(m *machine, password string) error {
			return m.podman(password, "login", "-u", ann, "--password-stdin", siteName)
		},
		logOut: func(m *machine, _ string) error { return m.podman("", "logout", siteName) },
		pull: func(m *machine, _, reference string) error {
			return m.podman("", "pull", "--signature-policy", m.path("policy.json"), "--quiet", reference)
		},
	},
	{
		name: "skopeo",
		logIn: func(m *machine, password string) error {
			return m.run(password, "skopeo", "login", "-u", ann, "--password-stdin", siteName)
		},
		logOut: func(m *machine, _ string) error { return m.run("", "skopeo", "logout", siteName) },
		pull: func(m *machine, _, reference string) error {
			return m.run("", "skopeo", "copy", "--policy", m.path("policy.json"), "docker://"+reference, "dir:"+m.r.t.TempDir())
		},
	},
	{
		name: "crane",
		logIn: func(m *machine, password string) error {
			return m.run(password, "crane", "auth", "login", siteName, "-u", ann, "--password-stdin")
		},
		logOut: func(m *machine, _ string) error { return m.run("", "crane", "auth", "logout", siteName) },
		pull: func(m *machine, _, reference string) error {
			return m.run("", "crane", "pull", "--format=oci", reference, m.r.t.TempDir())
		},
	},
}

func TestUsersLogInWithEveryClient(t *testing.T) {
	r := start(t, "users = \"USERS\"\n")
	reference := siteName + "/" + public + ":v1"
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			m := r.newMachine()
			if c.begin != nil {
				c.begin(m)
			}
			if err := c.pull(m, "", reference); err == nil {
				t.Error("it pulls without a login")
			}
			// crane stores a login without trying it.
			if c.logIn != nil && c.name != "crane" && c.logIn(m, "canary-guess") == nil {
				t.Error("a wrong password is accepted")
			}
			if c.logIn != nil {
				if err := c.logIn(m, annPassword); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.pull(m, annPassword, reference); err != nil {
				t.Fatal(err)
			}
			if err := c.pull(m, annPassword, siteName+"/"+private+":v1"); err == nil {
				t.Error("a login at the site opens a private repository")
			}
			if c.logOut == nil {
				return
			}
			if err := c.logOut(m, ""); err != nil {
				t.Error(err)
			}
		})
	}
	if log := r.Log(); !strings.Contains(log, "user="+ann) {
		t.Error("the log does not say who asks")
	}
	r.loginStaysHere()
}

// loginStaysHere checks that the registry saw nothing of the visitor's login.
func (r *rig) loginStaysHere() {
	r.t.Helper()
	if len(r.hub.All()) == 0 {
		r.t.Error("the registry was not asked")
	}
	for _, request := range r.hub.All() {
		for _, header := range request.Header["Authorization"] {
			decoded, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "Basic "))
			if strings.Contains(header+string(decoded), annPassword) || strings.Contains(header, "sidemirror.") || strings.HasPrefix(string(decoded), ann) {
				r.t.Errorf("%s %s was sent with %q", request.Method, request.Path, header)
			}
		}
	}
}

func TestImageOfTwentyLayersMeetsNoLimit(t *testing.T) {
	r := start(t, "")
	sizes := make([]int, 20)
	for i := range sizes {
		sizes[i] = 300 << 10
	}
	r.hub.Add("library/twenty", "v1", quirky.NewImage(true, "twenty", sizes...))
	r.hub.Add("library/twenty", "v2", quirky.NewImage(true, "twenty more", sizes...))
	m := r.newMachine()
	m.startDocker()
	if err := m.run("", "docker", "pull", "--quiet", siteName+"/library/twenty:v1"); err != nil {
		t.Error(err)
	}
	m.startContainerd()
	if err := m.run("", "ctr", "--address", m.path("c.sock"), "images", "pull", "--snapshotter", "native", "--max-concurrent-downloads", "20", siteName+"/library/twenty:v2"); err != nil {
		t.Error(err)
	}
	log := r.Log()
	if strings.Contains(log, "status=429") || strings.Contains(log, "toomanyrequests") {
		t.Error("a pull has met a limit")
	}
	t.Logf("%d requests for two pulls", strings.Count(log, "client=172.30.9.2"))
}

// token fetches a token as a client does; "" if it gets none.
func (r *rig) token(password, scope string) string {
	r.t.Helper()
	got := r.get("/v2/auth?service=sidemirror&scope="+url.QueryEscape(scope), "Authorization", basic(ann, password))
	var answer struct{ Token string }
	if got.Status != http.StatusOK || json.Unmarshal(got.Body, &answer) != nil {
		return ""
	}
	return "Bearer " + answer.Token
}

func TestTokenIsForOneUserAndItsScope(t *testing.T) {
	r := start(t, "users = \"USERS\"\n")
	challenged := r.get(appManifest)
	want := fmt.Sprintf("Bearer realm=%q,service=%q,scope=%q", "https://"+siteName+"/v2/auth", "sidemirror", "repository:"+public+":pull")
	if got := challenged.Header.Get("WWW-Authenticate"); challenged.Status != http.StatusUnauthorized || got != want {
		t.Errorf("without a login: %d %s", challenged.Status, got)
	}
	if got := r.get("/"); got.Status != http.StatusOK {
		t.Errorf("the page, which says how to log in, needs a login: %d", got.Status)
	}
	token := r.token(annPassword, "repository:"+public+":pull")
	if got := r.get(appManifest, "Authorization", token); got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		t.Fatalf("with a token: %d %s", got.Status, got.Says())
	}
	for name, h := range map[string]string{
		"a token of another repository": r.token(annPassword, "repository:library/other:pull"),
		"a token without a scope":       r.token(annPassword, ""),
		"a token with a changed byte":   token[:len(token)-6] + "AAAAAA",
		"no token":                      "Bearer sidemirror.",
		"a token of the registry":       "Bearer token-of-robot",
	} {
		if got := r.get(appManifest, "Authorization", h); got.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	// A token that an engine of this host fetched is for nothing here.
	local := r.Get("/v2/auth?service=sidemirror", nil)
	var answer struct{ Token string }
	if err := json.Unmarshal(local.Body, &answer); err != nil || answer.Token == "" {
		t.Fatalf("%v in %s", err, local.Body)
	}
	if got := r.get(appManifest, "Authorization", "Bearer "+answer.Token); got.Status != http.StatusUnauthorized {
		t.Errorf("with a token from the loopback address: %d", got.Status)
	}
	r.loginStaysHere()
}

func TestFileOfUsersIsReadAgainWhenItChanges(t *testing.T) {
	r := start(t, "users = \"USERS\"\n")
	token := r.token(annPassword, "repository:"+public+":pull")
	status := func(header string) int { return r.get(appManifest, "Authorization", header).Status }
	if token == "" || status(token) != http.StatusOK {
		t.Fatal("the user has no access at first")
	}
	// A file that cannot be used changes nothing.
	if err := os.WriteFile(r.users, []byte(ann+":$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	r.Eventually("the problem is logged", func() bool { return strings.Contains(r.Log(), "site-users-unreadable") })
	if got := status(basic(ann, annPassword)); got != http.StatusOK {
		t.Errorf("with a file that cannot be used: %d", got)
	}
	r.setUser("canary-guess-that-is-right-now")
	r.Eventually("the new password is right", func() bool { return status(basic(ann, "canary-guess-that-is-right-now")) == http.StatusOK })
	if a, b := status(basic(ann, annPassword)), status(token); a != http.StatusUnauthorized || b != http.StatusUnauthorized {
		t.Errorf("with the old password: %d; with a token that it got: %d", a, b)
	}
	r.engineIsServed("meanwhile")
}

// siteUser runs "sidemirror site user" for the site, as its administrator does.
func (r *rig) siteUser(input string, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), harness.Binary(r.t), append([]string{"--config", filepath.Join(r.Dir(), "config.toml"), "site", "user"}, args...)...)
	cmd.Stdin, cmd.Env = strings.NewReader(input), []string{} // without the variables of the tests
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("site user %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The daemon runs all the time, and the visitor is a real docker at another host.
func TestUsersThatTheCommandAddsAndRemovesLogInWithDocker(t *testing.T) {
	r := start(t, "users = \"USERS\"\n")
	if err := os.Remove(r.users); err != nil {
		t.Fatal(err)
	}
	const password = "canary-of-carol-19e0"
	m := r.newMachine()
	m.startDocker()
	logIn := func() error { return m.run(password, "docker", "login", "-u", "carol", "--password-stdin", siteName) }
	pull := func() error { return m.run("", "docker", "pull", "--quiet", siteName+"/"+public+":v1") }
	carol := func() int { return r.get(appManifest, "Authorization", basic("carol", password)).Status }

	if out := r.siteUser(password, "add", "carol", "--password-stdin"); !strings.Contains(out, "docker login "+siteName) || strings.Contains(out, password) {
		t.Errorf("add prints %q", out)
	}
	r.Eventually("the daemon has read the file", func() bool { return carol() == http.StatusOK })
	if err := m.run("canary-guess", "docker", "login", "-u", "carol", "--password-stdin", siteName); err == nil {
		t.Error("a wrong password is accepted")
	}
	if err := pull(); err == nil {
		t.Error("it pulls without a login")
	}
	if err := errors.Join(logIn(), pull(), m.run("", "docker", "rmi", siteName+"/"+public+":v1")); err != nil {
		t.Fatal(err)
	}
	if out := r.siteUser("", "list"); out != "carol\n" {
		t.Errorf("list prints %q", out)
	}
	if out := r.siteUser("", "remove", "carol"); !strings.Contains(out, "no visitor can log in") {
		t.Errorf("remove prints %q", out)
	}
	r.Eventually("the login is refused", func() bool { return carol() == http.StatusUnauthorized })
	if err := pull(); err == nil {
		t.Error("a user who is removed pulls with the login that docker has stored")
	}
	if err := logIn(); err == nil {
		t.Error("a user who is removed can log in")
	}
	if got := r.get(appManifest); got.Status != http.StatusUnauthorized {
		t.Errorf("without users and a login: %d", got.Status)
	}
	r.engineIsServed("without users")
}
