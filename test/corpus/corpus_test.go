// Package corpus runs attacks that are data against the real binary: what a registry or a program in
// its place answers, and what the credentials of the daemon and of an engine then do. The files in
// testdata hold one attack an entry.
package corpus

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	repo   = "team/app"
	daemon = "daemon:canary-of-the-daemon-41c7"
	engine = "engine:canary-of-the-engine-9e02"
)

var image = quirky.NewImage(false, "corpus", 2000)

// attack is what a registry answers in place of its own answer. In Header and Body, {OWN} is the
// registry's URL, {OWNHOST} its host and port, and {EVILPORT} the port of the trap, which listens on
// every loopback address.
type attack struct {
	Name   string
	Source string

	// On is what is answered so: "base" (/v2/), "manifest", "blob", "tags", "registry" (all of
	// these) or "token". When is "always", "authorized" or "unauthorized", by the request's own
	// Authorization header.
	On, When string

	Status int
	Header map[string][]string
	Body   string
}

func load(t *testing.T, name string) []attack {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	var all []attack
	if err := dec.Decode(&all); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(all) == 0 {
		t.Fatalf("%s holds no attack", name)
	}
	return all
}

// trap is another host. It records what it is sent.
type trap struct {
	*httptest.Server
	port string
	back string // where /back redirects

	mu          sync.Mutex
	requests    int
	credentials []string
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	listener, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &trap{}
	_, c.port, _ = net.SplitHostPort(listener.Addr().String())
	c.Server = httptest.NewUnstartedServer(c)
	c.Listener.Close()
	c.Listener = listener
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func (c *trap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	query, _ := url.QueryUnescape(r.URL.RawQuery)
	for _, text := range append(r.Header["Authorization"], r.Header.Get("Cookie"), string(body), query) {
		if text != "" && (text == r.Header.Get("Authorization") || text == r.Header.Get("Cookie") || secret(text)) {
			c.credentials = append(c.credentials, text)
		}
	}
	switch {
	case r.URL.Path == "/back":
		http.Redirect(w, r, c.back, http.StatusTemporaryRedirect)
	case strings.HasSuffix(r.URL.Path, "/token"):
		_, _ = io.WriteString(w, `{"token":"of-the-trap","expires_in":300}`)
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// secret reports whether a text holds a password, a token of the registry's or one of sidemirror's.
func secret(text string) bool {
	for _, login := range []string{daemon, engine} {
		_, password, _ := strings.Cut(login, ":")
		if strings.Contains(text, password) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(login))) {
			return true
		}
	}
	return strings.Contains(text, "token-of-") || strings.Contains(text, "sidemirror.")
}

// caught returns how many requests came and how many bytes of credentials were in them.
func (c *trap) caught() (requests, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range c.credentials {
		bytes += len(text)
	}
	return c.requests, bytes
}

// answers reports whether the attack answers a request.
func (a attack) answers(part quirky.Part, r *http.Request) bool {
	authorized := r.Header.Get("Authorization") != ""
	if a.When == "authorized" && !authorized || a.When == "unauthorized" && authorized {
		return false
	}
	kinds := map[string]string{"manifest": "/manifests/", "blob": "/blobs/", "tags": "/tags/"}
	switch a.On {
	case "token":
		return part == quirky.Token || r.URL.Path == "/token"
	case "base":
		return r.URL.Path == "/v2/"
	case "registry":
		return strings.HasPrefix(r.URL.Path, "/v2/")
	}
	return strings.Contains(r.URL.Path, kinds[a.On])
}

// scene is a sidemirror in front of one attacking registry for each client_auth.
type scene struct {
	t     *testing.T
	side  *harness.Sidemirror
	names []string
	trap  *trap
}

// modes are the client_auth settings, and whether the daemon has a login.
var modes = []struct {
	auth  string
	login bool
}{{"daemon", true}, {"relay", true}, {"auto", true}, {"auto", false}}

// stage starts the registries. If trusted is true, the trap is one of their realms.
func stage(t *testing.T, a attack, scheme string, trusted bool) *scene {
	t.Helper()
	s := &scene{t: t, trap: newTrap(t)}
	o := harness.Options{Logins: map[string]string{}, Secrets: []string{"canary-of-the-engine-9e02"}}
	for _, m := range modes {
		up := quirky.New(t, quirky.Options{Auth: quirky.Auth{
			Scheme: scheme, Users: map[string]string{"daemon": "canary-of-the-daemon-41c7", "engine": "canary-of-the-engine-9e02"}, Private: []string{""},
		}})
		up.Add(repo, "v1", image)
		fill := strings.NewReplacer("{OWN}", up.URL(), "{OWNHOST}", up.Host(), "{EVILPORT}", s.trap.port)
		s.trap.back = up.URL() + "/v2/" + repo + "/manifests/v1"
		up.Set(func(o *quirky.Options) {
			o.Intercept = func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
				if !a.answers(part, r) {
					return false
				}
				for name, values := range a.Header {
					for _, v := range values {
						w.Header().Add(name, fill.Replace(v))
					}
				}
				w.WriteHeader(a.Status)
				_, _ = io.WriteString(w, fill.Replace(a.Body))
				return true
			}
		})
		reg := harness.Registry{Name: up.Host(), Upstreams: []string{up.URL()}, ClientAuth: m.auth}
		if trusted {
			reg.Realms = []string{"http://127.0.0.2:" + s.trap.port}
		}
		if m.login {
			o.Logins[up.Host()] = daemon
		}
		o.Registries = append(o.Registries, reg)
		s.names = append(s.names, up.Host())
	}
	s.side = harness.Start(t, o)
	return s
}

// play asks for everything of each registry, as an engine with a login does.
func (s *scene) play() {
	s.t.Helper()
	for _, name := range s.names {
		for _, what := range []string{"manifests/v1", "blobs/" + image.Blobs[1].Digest.String(), "tags/list", "referrers/" + image.Digest.String()} {
			s.ask("/v2/"+repo+"/"+what+"?ns="+name, "repository:"+repo+":pull", "&ns="+name)
			s.ask("/v2/"+name+"/"+repo+"/"+what, "repository:"+name+"/"+repo+":pull", "")
		}
		s.ask("/v2/?ns="+name, "", "&ns="+name)
	}
}

// ask asks for a path without a login, and again with what the challenge leads to.
func (s *scene) ask(path, scope, ns string) {
	s.t.Helper()
	basic := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(engine))}}
	s.side.Get(path, nil)
	s.side.Get(path, basic)
	query := "/v2/auth?service=sidemirror&scope=" + url.QueryEscape(scope) + ns
	user, password, _ := strings.Cut(engine, ":")
	form := url.Values{"grant_type": {"password"}, "username": {user}, "password": {password}, "scope": {scope}, "service": {"sidemirror"}}
	for _, body := range [][]byte{s.side.Get(query, basic).Body, s.post("/v2/auth?"+strings.TrimPrefix(ns, "&"), form)} {
		var answer struct{ Token string }
		if json.Unmarshal(body, &answer) == nil && answer.Token != "" {
			s.side.Get(path, http.Header{"Authorization": {"Bearer " + answer.Token}})
		}
	}
}

func (s *scene) post(path string, form url.Values) []byte {
	s.t.Helper()
	resp, err := harness.Client(s.t).PostForm(s.side.URL()+path, form)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return body
}

func TestNoCredentialReachesAHostThatIsNotPinned(t *testing.T) {
	attacks, requests, bytes := 0, 0, 0
	for _, x := range []struct{ name, scheme string }{{"realms", "Bearer"}, {"redirects", "Bearer"}, {"redirects", "Basic"}} {
		for _, a := range load(t, x.name) {
			attacks++
			t.Run(x.name+" "+x.scheme+"/"+a.Name, func(t *testing.T) {
				s := stage(t, a, x.scheme, false)
				s.play()
				came, got := s.trap.caught()
				requests, bytes = requests+came, bytes+got
				if got != 0 {
					t.Errorf("%d bytes of credentials in %d requests: %.200q", got, came, s.trap.credentials)
				}
			})
		}
	}
	t.Logf("%d attacks on %d registries each: %d requests reached the other host, with %d bytes of credentials", attacks, len(modes), requests, bytes)
}

// The same attack, and the administrator has named the other host in realms: it gets the logins.
func TestTheTrapCatchesWhatIsSentToIt(t *testing.T) {
	for _, a := range load(t, "realms") {
		if a.Name != "foreign host" {
			continue
		}
		s := stage(t, a, "Bearer", true)
		s.play()
		s.trap.mu.Lock()
		all := strings.Join(s.trap.credentials, "\n")
		s.trap.mu.Unlock()
		for who, login := range map[string]string{"the daemon": daemon, "the engine": engine} {
			if !strings.Contains(all, base64.StdEncoding.EncodeToString([]byte(login))) {
				t.Errorf("the trap did not get the login of %s", who)
			}
		}
		return
	}
	t.Error("the attack is not in the corpus")
}
