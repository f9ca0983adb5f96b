// Package registry runs Debian's docker-registry and a real Bearer token server
// for the tests, on loopback and with folders of their own, and fills them with
// images.
package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/sidemirror/sidemirror/test/process"
)

// Options say what kind of registry to start. The zero value is an open one on
// plain http at a free port.
type Options struct {
	// Private registries give nothing without a token of a token server of their
	// own, which knows one user and grants it the repositories below its name.
	Private bool

	// RefuseForms makes the token server of a private registry refuse POST with 405. Clients that try
	// POST first, such as BuildKit, then use GET. Without this option it
	// refuses a password in a form with 400, after which they give up.
	RefuseForms bool

	// Names, if any, makes it an https registry with a certificate for them, signed
	// by an authority of its own.
	Names []string

	// ClientCertificates makes an https registry refuse connections without a certificate of
	// its authority's, such as the one in [Registry.ClientCert].
	ClientCertificates bool

	// CacheOf, if not nil, makes it a pull-through cache of that open registry.
	CacheOf *Registry

	// Address to listen on, "127.0.0.1:0" if empty.
	Address string
}

// Registry is a running docker-registry.
type Registry struct {
	// URL is where it answers, without a path.
	URL *url.URL

	// Host is the host and port of URL, as references have it.
	Host string

	// CA is the path of the PEM authority of an https registry.
	CA string

	// ClientCert and ClientKey are the paths of a certificate that the authority of an https
	// registry has signed, and of its key.
	ClientCert, ClientKey string

	// Realm is the origin of a private registry's token server.
	Realm string

	// User and Password are known to a private registry's token server.
	User, Password string

	client *http.Client
	daemon *process.Daemon
}

// Two things are left to the template: the token realm's path, which the token
// server fixes, and the log at info level, which holds the access lines.
var config = template.Must(template.New("config.yml").Parse(`version: 0.1
log:
  level: info
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {{.Folder}}/data
  delete:
    enabled: true
http:
  addr: "{{.Address}}"
  secret: only-of-use-with-several-registries
{{- if .CA}}
  tls:
    certificate: {{.Folder}}/tls.pem
    key: {{.Folder}}/tls.key
{{- if .ClientCertificates}}
    clientcas: [{{.CA}}]
{{- end}}
{{- end}}
{{- if .CacheOf}}
proxy:
  remoteurl: {{.CacheOf}}
{{- end}}
{{- if .Realm}}
auth:
  token:
    realm: {{.Realm}}/token/
    service: sidemirror-test
    issuer: sidemirror-test
    rootcertbundle: {{.Folder}}/token.pem
{{- end}}
`))

var listening = regexp.MustCompile(`listening on ([0-9a-f.:\[\]]+)`)

// Start runs a registry until the end of the test.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	folder := t.TempDir()
	r := &Registry{URL: &url.URL{Scheme: "http"}, client: &http.Client{}}
	t.Cleanup(r.client.CloseIdleConnections)
	if len(o.Names) > 0 {
		r.URL.Scheme, r.CA = "https", filepath.Join(folder, "ca.pem")
		r.ClientCert, r.ClientKey = filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
		// The token server is at localhost.
		r.client.Transport = issue(t, folder, append(slices.Clone(o.Names), "localhost"))
	}
	if o.Private {
		r.startTokenServer(t, folder, o.RefuseForms)
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	path := filepath.Join(folder, "config.yml")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	cacheOf := ""
	if o.CacheOf != nil {
		cacheOf = o.CacheOf.URL.String()
	}
	err = config.Execute(file, struct {
		Folder, Address, CA, Realm, CacheOf string
		ClientCertificates                  bool
	}{folder, o.Address, r.CA, r.Realm, cacheOf, o.ClientCertificates})
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
	cmd := exec.Command(process.Path(t, "docker-registry"), "serve", path)
	r.daemon = process.Start(t, "docker-registry", cmd, func(output string) error {
		found := listening.FindStringSubmatch(output)
		if found == nil {
			return errors.New("it does not listen")
		}
		r.Host = found[1]
		return nil
	})
	r.URL.Host = r.Host
	return r
}

// Stop ends the registry before the end of the test.
func (r *Registry) Stop() { r.daemon.Stop() }

// Requests returns how many requests for a path the registry has answered: all of
// them, and those whose User-Agent was ours.
func (r *Registry) Requests(path string) (all, ours int) {
	for line := range strings.Lines(r.daemon.Output()) {
		// "response completed", or "response completed with error".
		if !strings.Contains(line, `msg="response completed`) || !strings.Contains(line, path) {
			continue
		}
		all++
		if strings.Contains(line, "sidemirror/") {
			ours++
		}
	}
	return all, ours
}

// Refused returns how many requests for a path a private registry has refused to clients other than
// sidemirror.
func (r *Registry) Refused(path string) int {
	n := 0
	for line := range strings.Lines(r.daemon.Output()) {
		if strings.Contains(line, `msg="error authorizing context`) && strings.Contains(line, path) && !strings.Contains(line, "sidemirror/") {
			n++
		}
	}
	return n
}

// Downloads returns how many bodies of blobs of a repository the registry has sent.
func (r *Registry) Downloads(repository string) int {
	n := 0
	for line := range strings.Lines(r.daemon.Output()) {
		if strings.Contains(line, `msg="response completed`) && strings.Contains(line, "http.request.method=GET") && strings.Contains(line, "/v2/"+repository+"/blobs/") {
			n++
		}
	}
	return n
}

// Reference returns the reference by which the registry itself serves a
// repository: "127.0.0.1:5000/alice/app".
func (r *Registry) Reference(repository string) string {
	return fmt.Sprintf("%s/%s", r.Host, repository)
}

// Login writes a docker config.json that logs in to host as the registry's user,
// and returns its folder, fit for $DOCKER_CONFIG.
func (r *Registry) Login(t testing.TB, host string) string {
	t.Helper()
	folder := t.TempDir()
	pair := base64.StdEncoding.EncodeToString([]byte(r.User + ":" + r.Password))
	write(t, filepath.Join(folder, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, pair))
	return folder
}
