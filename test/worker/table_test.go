// Package worker shows the table of the worker that sidemirror descends from, with
// the real binary in relay mode: the client answers challenges, we lead it to
// ourselves for that.
package worker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	user     = "alice"
	password = "canary-of-alice-80c2"
	hubName  = "docker.example.lan" // names docker.io by Host
	ghcrName = "ghcr.example.lan"
)

var busybox = quirky.NewImage(false, "busybox", 5000)

// table is a daemon with Docker Hub, whose token server is elsewhere and whose blobs
// are too, and ghcr.io, both relayed.
type table struct {
	*harness.Sidemirror
	t         *testing.T
	hub, ghcr *quirky.Server
}

func start(t *testing.T) *table {
	t.Helper()
	login := map[string]string{user: password}
	hub := quirky.Like("docker.io")
	hub.Auth.Users, hub.Auth.Private = login, []string{"library/private"}
	ghcr := quirky.Like("ghcr.io")
	ghcr.Auth.Users, ghcr.Auth.Private = login, []string{""}
	w := &table{t: t, hub: quirky.New(t, hub), ghcr: quirky.New(t, ghcr)}
	w.hub.Add("library/busybox", "latest", busybox)
	w.hub.Add("library/private", "latest", busybox)
	w.ghcr.Add("o/i", "latest", busybox)
	w.Sidemirror = harness.Start(t, harness.Options{
		Registries: []harness.Registry{
			{Name: "docker.io", Upstreams: []string{w.hub.URL()}, Hosts: []string{hubName}, Realms: []string{w.hub.TokenOrigin()}, Relay: true},
			{Name: "ghcr.io", Upstreams: []string{w.ghcr.URL()}, Hosts: []string{ghcrName}, Relay: true},
		},
		// What the daemon knows is never used for a client of relay mode.
		Logins: map[string]string{"docker.io": "daemon:canary-of-the-daemon-11ab", "ghcr.io": "daemon:canary-of-the-daemon-11ab"},
	})
	// At its start the daemon looks whether its upstreams are there. That is not
	// what these tests count.
	for _, up := range []*quirky.Server{w.hub, w.ghcr} {
		w.Eventually("the daemon looks whether its upstream is there", func() bool {
			seen := up.Requests(quirky.Registry, "", "/v2/")
			return len(seen) > 0 && seen[0].Done
		})
		up.Forget()
	}
	return w
}

func host(name string) http.Header { return http.Header{"Host": {name}} }

func (w *table) status(what string, a harness.Answer, want int) {
	w.t.Helper()
	if a.Status != want {
		w.t.Errorf("%s: status %d, want %d: %.300s", what, a.Status, want, a.Body)
	}
}

// challenged fails the test unless a is a 401 whose one challenge has that realm,
// the service sidemirror and that scope.
func (w *table) challenged(what string, a harness.Answer, realm, scope string) {
	w.t.Helper()
	want := `Bearer realm="` + realm + `",service="sidemirror"`
	if scope != "" {
		want += `,scope="` + scope + `"`
	}
	if got := a.Header.Values("WWW-Authenticate"); a.Status != 401 || !slices.Equal(got, []string{want}) {
		w.t.Errorf("%s: status %d, challenge %q; want 401, %q", what, a.Status, got, want)
	}
}

// untouched fails the test if the daemon's own login was used.
func (w *table) untouched() {
	w.t.Helper()
	for _, up := range []*quirky.Server{w.hub, w.ghcr} {
		for _, q := range up.All() {
			if strings.Contains(q.Header.Get("Authorization")+q.Body, base64.StdEncoding.EncodeToString([]byte("daemon:"))[:8]) {
				w.t.Errorf("%s %s: the daemon's credential was used for a client of relay mode", q.Part, q.Path)
			}
		}
	}
}

// token asks our token endpoint and gives what it answers.
func (w *table) token(path string, header http.Header) string {
	w.t.Helper()
	a := w.Get(path, header)
	w.status(path, a, 200)
	var answer struct{ Token string }
	if err := json.Unmarshal(a.Body, &answer); err != nil || answer.Token == "" {
		w.t.Fatalf("%s: no token in %s (%v)", path, a.Body, err)
	}
	return answer.Token
}

// login adds the client's own login to header.
func login(header http.Header) http.Header {
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	return header
}

func (w *table) post(path string, form url.Values) harness.Answer {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, w.URL()+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Host = hubName
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := harness.Client(w.t).Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return harness.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body, Err: err}
}

func (w *table) whole(a harness.Answer, want []byte) {
	w.t.Helper()
	if a.Status != 200 || a.Err != nil || !bytes.Equal(a.Body, want) || a.Header.Get("Location") != "" {
		w.t.Errorf("status %d, %d bytes of %d, %v", a.Status, len(a.Body), len(want), a.Err)
	}
}
