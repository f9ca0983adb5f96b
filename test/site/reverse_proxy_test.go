package site

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/blocks"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// foreign is a name that leads here and stands for no registry.
const foreign = "other.example.com"

// pair writes a certificate for the names and its key, and returns the files and the certificate.
func pair(t *testing.T) (cert, key string, root []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{hubName, ghcrName, foreign}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key")
	root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, cert, root)
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	return cert, key, root
}

// documented returns the block of docs/site.md in a language, with replacements.
func documented(t *testing.T, language string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/site.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks.Markdown("docs/site.md", string(text)) {
		if b.Language != language || !strings.Contains(b.Commands(), replace[0]) {
			continue
		}
		got := b.Commands()
		for i := 0; i < len(replace); i += 2 {
			if !strings.Contains(got, replace[i]) {
				t.Fatalf("%q is not in the %s block of docs/site.md", replace[i], language)
			}
			got = strings.ReplaceAll(got, replace[i], replace[i+1])
		}
		return got
	}
	t.Fatalf("docs/site.md has no %s block with %q", language, replace[0])
	return ""
}

func awaitPort(string) error {
	c, err := net.Dial("tcp", gateway+":443")
	if err == nil {
		err = c.Close()
	}
	return err
}

func startNginx(t *testing.T, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	server := documented(t, "nginx", "listen 443 ssl", "listen "+gateway+":443 ssl", "/etc/ssl/docker.example.com.pem", cert, "/etc/ssl/docker.example.com.key", key)
	temp := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += fmt.Sprintf("%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	file := filepath.Join(dir, "nginx.conf")
	write(t, file, []byte(fmt.Sprintf("daemon off;\nuser root;\npid %s/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s%s\n}\n", dir, temp, server)))
	process.Start(t, "nginx", exec.Command(process.Path(t, "nginx"), "-e", "stderr", "-c", file), awaitPort)
}

func startCaddy(t *testing.T, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	site := documented(t, "caddy", "docker.example.com {", fmt.Sprintf("%s, %s, %s {\n    bind %s\n    tls %s %s", hubName, ghcrName, foreign, gateway, cert, key))
	file := filepath.Join(dir, "Caddyfile")
	write(t, file, []byte("{\n    admin off\n    auto_https disable_redirects\n}\n"+site+"\n"))
	cmd := exec.Command(process.Path(t, "caddy"), "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	process.Start(t, "caddy", cmd, awaitPort)
}

func basic(password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// request is one that is sent to the site and, by plain HTTP, to this host's own port.
type request struct{ method, path, host, authorization, part string }

// requests are those of a pull, of a login, and of what goes wrong.
func requests(token string) []request {
	manifest := "/v2/library/alpine/manifests/" + image.Digest.String()
	blob := "/v2/library/alpine/blobs/" + image.Blobs[1].Digest.String()
	list := []request{
		{path: "/v2/"}, {path: "/v2/", host: ghcrName}, {path: "/v2/", authorization: "Bearer " + token},
		{path: "/v2/auth?scope=repository:alpine:pull&service=sidemirror"},
		{path: "/v2/auth?scope=repository:private:pull&service=sidemirror", authorization: basic(password)},
		{path: "/v2/auth?scope=repository:private:pull", authorization: basic("wrong")},
		{path: "/v2/auth?scope=nonsense"},
		{path: "/v2/alpine/manifests/latest"}, {path: "/v2/alpine/tags/list?n=5&last=a"}, {path: "/v2/alpine/blobs/" + image.Blobs[1].Digest.String()},
		{path: "/v2/library/alpine/manifests/latest"}, {path: manifest}, {path: blob}, {path: blob, part: "bytes=10-99"}, {path: blob, part: "bytes=999999999-"},
		{path: "/v2/library/alpine/tags/list"}, {path: "/v2/library/alpine/manifests/unknown"},
		{path: "/v2/library/private/manifests/latest"}, {path: "/v2/library/private/manifests/latest", authorization: "Bearer " + token},
		{path: "/v2/o/i/manifests/latest", host: ghcrName},
		{path: "/v2/library/alpine/manifests/latest", host: foreign}, {path: "/v2/", host: foreign},
		{path: "/v3/"}, {path: "/v2/library/alpine/"}, {path: "/v2/_catalog"},
		{method: http.MethodPost, path: "/v2/library/alpine/blobs/uploads/"}, {method: http.MethodDelete, path: manifest},
	}
	for _, r := range slices.Clone(list) {
		if r.method == "" {
			list = append(list, request{http.MethodHead, r.path, r.host, r.authorization, r.part})
		}
	}
	return list
}

// send sends a request to base, at which every name is served.
func (r request) send(client *http.Client, base string) harness.Answer {
	header := http.Header{"Host": {r.name()}}
	if r.authorization != "" {
		header.Set("Authorization", r.authorization)
	}
	if r.part != "" {
		header.Set("Range", r.part)
	}
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	return harness.Fetch(client, method, base+r.path, header)
}

func (r request) name() string {
	if r.host == "" {
		return hubName
	}
	return r.host
}

// sameAsPlain fails the test for each request to which the site responds differently than this host's
// own port does to the same name. The realm is one of https.
func (r *rig) sameAsPlain(root []byte) {
	r.t.Helper()
	own, client := harness.ClientAs(r.t, harness.Untrusted), r.visitor(root)
	var login struct{ Token string }
	a := request{path: "/v2/auth?scope=repository:private:pull", authorization: basic(password)}.send(client, "https://"+hubName)
	decode(r.t, a.Body, &login)
	if login.Token == "" {
		r.t.Fatalf("there is no token: %d %s", a.Status, a.Body)
	}
	statuses := map[int]int{}
	for _, q := range requests(login.Token) {
		want, got := q.send(own, r.URL()), q.send(client, "https://"+q.name())
		statuses[got.Status]++
		what := fmt.Sprintf("%s %s %s %s", q.method, q.name(), q.path, q.part)
		if got.Status != want.Status || got.Err != nil {
			r.t.Errorf("%s: %d, at the own port %d: %s, %v", what, got.Status, want.Status, got.Body, got.Err)
			continue
		}
		if !strings.HasPrefix(q.path, "/v2/auth") && !bytes.Equal(got.Body, want.Body) {
			r.t.Errorf("%s: %.300s, at the own port %.300s", what, got.Body, want.Body)
		}
		for _, name := range []string{"Www-Authenticate", "Location", "Content-Type", "Content-Range", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Etag", "Accept-Ranges", "Link"} {
			expected := strings.ReplaceAll(want.Header.Get(name), "http://"+q.name(), "https://"+q.name())
			if value := got.Header.Get(name); value != expected {
				r.t.Errorf("%s: %s %q, want %q", what, name, value, expected)
			}
		}
	}
	for _, status := range []int{200, 206, 301, 400, 401, 404, 405, 416} {
		if statuses[status] == 0 {
			r.t.Errorf("no request had the status %d: %v", status, statuses)
		}
	}
}

func TestSiteRespondsOverHTTPSAsByHostOnThisHost(t *testing.T) {
	cert, key, root := pair(t)
	r := start(t, fmt.Sprintf("listen = [%q]\ncert = %q\nkey = %q\n", gateway+":443", cert, key))
	r.sameAsPlain(root)
	page := harness.Fetch(r.visitor(root), http.MethodGet, "https://"+hubName+"/", nil)
	text := string(page.Body)
	if page.Status != 200 || !strings.Contains(text, "docker pull "+hubName+"/redis") || !strings.Contains(text, "https://"+hubName) {
		t.Errorf("the page: %d\n%s", page.Status, text)
	}
	for _, secret := range []string{"corp.example", "library/alpine", "sudo sidemirror status", "--plain-http", "sidemirror revert"} {
		if strings.Contains(text, secret) {
			t.Errorf("the page has %q", secret)
		}
	}
	// A registry that is served to the engines of this host alone is refused as one that does not exist.
	var refusals []string
	for _, ns := range []string{"corp.example", "unknown.example"} {
		a := harness.Fetch(r.visitor(root), http.MethodGet, "https://"+hubName+"/v2/o/i/manifests/latest?ns="+ns, nil)
		refusals = append(refusals, fmt.Sprint(a.Status, strings.ReplaceAll(string(a.Body), ns, "NAME")))
	}
	if refusals[0] != refusals[1] || !strings.HasPrefix(refusals[0], "404") {
		t.Errorf("%q", refusals)
	}
}

func TestReverseProxiesServeWhatTheSiteServes(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, string, string){"nginx": startNginx, "Caddy": startCaddy} {
		t.Run(name, func(t *testing.T) {
			cert, key, root := pair(t)
			r := start(t, "listen = [\"127.0.0.1:8305\"]\ntls = \"off\"\ntrusted_proxies = [\"127.0.0.1\"]\n")
			begin(t, cert, key)
			r.sameAsPlain(root)
			// What the client claims does not count: the proxy says who it is and what it has asked for.
			header := http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {foreign}}
			a := harness.Fetch(r.visitor(root), http.MethodGet, "https://"+hubName+"/v2/", header)
			if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, `realm="https://`+hubName+`/v2/auth"`) {
				t.Errorf("with forged headers: %d, %q", a.Status, got)
			}
		})
	}
}

// A caller that is no trusted proxy could otherwise make others send their logins elsewhere.
func TestForgedForwardedHeadersDoNotChangeTheRealm(t *testing.T) {
	r := start(t, fmt.Sprintf("listen = [%q]\ntls = \"off\"\ntrusted_proxies = [\"192.0.2.1\"]\n", gateway+":8305"))
	client := r.visitor(nil)
	for _, header := range []http.Header{
		{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {ghcrName}},
		{"Forwarded": {`for=192.0.2.1;proto=https;host=` + ghcrName}},
	} {
		header.Set("Host", ghcrName)
		a := harness.Fetch(client, http.MethodGet, "http://"+gateway+":8305/v2/", header)
		if got := a.Header.Get("WWW-Authenticate"); strings.Contains(got, "https://") {
			t.Errorf("%v: %d, %q", header, a.Status, got)
		}
	}
}
