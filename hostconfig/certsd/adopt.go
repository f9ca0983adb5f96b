package certsd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// maxPEM bounds a certificate or a key, in bytes, and maxAdopted the files of one registry.
const (
	maxPEM     = 1 << 20
	maxAdopted = 32
)

// adopt adds to a plan how the engine reaches a registry, if the registry's folder says so: sidemirror
// reaches it in the same way. It reports false if sidemirror cannot. The registry is left to the
// engine then, and a note says why.
//
// If a hosts.toml has settings for another host, named says whether that matters: sidemirror is asked
// before the mirrors of a registry that its configuration names.
func (f Folder) adopt(plan *engine.Plan, registry, folder, mirror string, named bool) bool {
	if slices.Contains(f.Explicit, registry) {
		return true
	}
	a, err := f.settings(registry, folder, mirror)
	if named && errors.Is(err, errElsewhere) {
		err = nil
	}
	return f.take(plan, registry, folder, a, err)
}

// AdoptCertificates does what the planning of a hosts.toml does about the registry's certificates, for
// an engine that reads them and no hosts.toml. It reports false if the registry is left to the engine.
func (f Folder) AdoptCertificates(plan *engine.Plan, registry string) bool {
	folder := path.Join(f.Path, registry)
	if slices.Contains(f.Explicit, registry) {
		return true
	}
	ca, clients, err := Certificates(f.Host.Tree, folder)
	if err == nil && len(ca)+len(clients) == 0 {
		return true
	}
	a := &engine.Adopted{Registry: registry, From: folder}
	add(a, folder, splice.Host{CA: ca, Clients: clients})
	return f.take(plan, registry, folder, a, err)
}

// take adds a to a plan, or the note that says why not.
func (f Folder) take(plan *engine.Plan, registry, folder string, a *engine.Adopted, err error) bool {
	if a == nil && err == nil {
		return true
	}
	if err == nil {
		err = f.readFiles(a)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return true // planFile refuses the file
	}
	if err != nil {
		p := problem.Coded(err, "registry-with-own-tls")
		plan.State.Note(problem.Problem{
			Code: p.Code, Path: folder,
			Text: fmt.Sprintf("has settings for %s that sidemirror cannot use: the engine pulls from it directly: %s", registry, p.Error()),
			Hint: p.Hint,
		})
		plan.Skipped = append(plan.Skipped, registry)
		return false
	}
	plan.State.Adopted = append(plan.State.Adopted, *a)
	return true
}

// onlyCertificates reports whether a registry's folder has no hosts.toml but sidemirror's, so that the *.crt,
// *.cert and *.key files in it count.
func (f Folder) onlyCertificates(folder string) bool {
	name := path.Join(folder, "hosts.toml")
	now, err := f.Host.Tree.Read(name)
	if err != nil {
		return false
	}
	entry := f.Host.Journal.Find(name)
	return len(now.Data) == 0 || entry != nil && !entry.Existed && entry.IsOurs(now.Data)
}

// settings returns how a registry's folder makes the engine reach the registry; nil if in the usual
// way. What [Folder.planFile] refuses is not an error.
func (f Folder) settings(registry, folder, mirror string) (*engine.Adopted, error) {
	a := &engine.Adopted{Registry: registry, From: folder}
	if f.onlyCertificates(folder) {
		ca, clients, err := Certificates(f.Host.Tree, folder)
		if err != nil || len(ca)+len(clients) == 0 {
			return nil, nil //nolint:nilerr // planFile refuses it
		}
		add(a, folder, splice.Host{CA: ca, Clients: clients})
		return a, nil
	}
	a.From = path.Join(folder, "hosts.toml")
	now, err := f.Host.Tree.Read(a.From)
	if err != nil {
		return nil, nil //nolint:nilerr // planFile refuses it
	}
	file, err := splice.ReadHosts(a.From, now.Data, f.Library)
	if err != nil {
		return nil, nil //nolint:nilerr // planFile refuses it
	}
	err = fromHosts(a, folder, file, mirror)
	if len(a.CA)+len(a.Clients) == 0 && !a.SkipVerify && !a.PlainHTTP {
		return nil, err
	}
	return a, err
}

// errElsewhere says that a hosts.toml has settings for another host than the registry's own.
var errElsewhere = errors.New("it has settings for another host")

// fromHosts adds what a hosts.toml says about the registry itself. It fails if sidemirror cannot do
// the same, and with errElsewhere if the file has settings for another host: sidemirror, which is
// asked first, would reach the registry without them.
func fromHosts(a *engine.Adopted, folder string, file splice.HostsFile, mirror string) error {
	secure, elsewhere := false, error(nil)
	for i, host := range append([]splice.Host{file.Server}, file.Hosts...) {
		if i > 0 && splice.SameURL(host.Name, mirror) {
			continue
		}
		plain := strings.HasPrefix(host.Name, "http://")
		switch itself := i == 0 && host.Name == "" || isRegistry(host.Name, a.Registry); {
		case !plain && !host.HasTLS():
			secure = secure || itself && i > 0
		case !itself:
			elsewhere = &problem.Problem{Text: host.Name + " is reached by plain HTTP or with certificates of its own", Err: errElsewhere}
		case plain && host.HasTLS():
			return &problem.Problem{Text: "it reaches the registry by HTTPS or plain HTTP, whichever works"}
		case plain:
			a.PlainHTTP = true
		default:
			secure = true
			add(a, folder, host)
		}
	}
	if a.PlainHTTP && secure {
		return &problem.Problem{Text: "it reaches the registry by HTTPS and by plain HTTP"}
	}
	return elsewhere
}

// isRegistry reports whether a URL is at the registry's own host.
func isRegistry(text, registry string) bool {
	if !strings.HasPrefix(text, "http") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	bare := func(host string) string { return strings.TrimSuffix(strings.ToLower(host), ":443") }
	host := bare(u.Host)
	return host == bare(registry) || registry == "docker.io" && host == "registry-1.docker.io"
}

// add adds the settings of a host. Names of files are relative to the folder.
func add(a *engine.Adopted, folder string, host splice.Host) {
	at := func(name string) string {
		if path.IsAbs(name) {
			return path.Clean(name)
		}
		return path.Join(folder, name)
	}
	for _, name := range host.CA {
		if !slices.Contains(a.CA, at(name)) {
			a.CA = append(a.CA, at(name))
		}
	}
	for _, client := range host.Clients {
		pair := engine.KeyPair{Cert: at(client[0]), Key: at(client[len(client)-1])}
		if !slices.Contains(a.Clients, pair) {
			a.Clients = append(a.Clients, pair)
		}
	}
	a.SkipVerify = a.SkipVerify || host.SkipVerify
}

// readFiles reads the certificates and keys, and fails if one of them cannot be used.
func (f Folder) readFiles(a *engine.Adopted) error {
	if len(a.CA)+len(a.Clients) > maxAdopted {
		return &problem.Problem{Text: fmt.Sprintf("it has more than %d certificates", maxAdopted)}
	}
	a.Contents = make(map[string]secret.Secret)
	for _, name := range a.CA {
		data, err := f.pem(a, name)
		if err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(data) {
			return &problem.Problem{Text: name + " contains no PEM certificate", Hint: "replace or remove it"}
		}
	}
	for _, pair := range a.Clients {
		if !f.CopyKeys && f.Host.Tree.IsFile(pair.Key) && !f.Host.Tree.Public(pair.Key) {
			return &problem.Problem{
				Code: "client-key-private", Text: "only root can read the client key " + pair.Key,
				Hint: "to let sidemirror use a copy of it, set adopt_client_keys = true in [engine] of /etc/sidemirror/config.toml",
			}
		}
		cert, err := f.pem(a, pair.Cert)
		if err != nil {
			return err
		}
		key, err := f.pem(a, pair.Key)
		if err != nil {
			return err
		}
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			return &problem.Problem{
				Text: fmt.Sprintf("the client certificate %s and the key %s cannot be used", pair.Cert, pair.Key), Hint: "replace or remove them", Err: err,
			}
		}
	}
	return nil
}

// pem reads a file that only root may have written.
func (f Folder) pem(a *engine.Adopted, name string) ([]byte, error) {
	file, err := f.Host.Tree.ReadTrusted(name)
	switch {
	case err != nil:
		return nil, err
	case !file.Exists():
		return nil, &problem.Problem{Text: name + " does not exist", Err: fs.ErrNotExist}
	case len(file.Data) > maxPEM:
		return nil, &problem.Problem{Text: fmt.Sprintf("%s is longer than %d bytes", name, maxPEM)}
	}
	a.Contents[name] = secret.New(string(file.Data))
	return file.Data, nil
}
