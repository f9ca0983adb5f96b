package corpus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// sequence is what callers ask one after another of a private repository.
type sequence struct {
	Name, Source string
	ClientAuth   string `json:"client_auth"`
	DaemonLogin  bool   `json:"daemon_login"` // sidemirror has a login for the registry
	Scheme       string // how the registry wants logins
	Steps        []step
}

// step is either a caller, who gets "everything" or "nothing" of the image, or a change of the
// registry: "public", "private", "moved" (the tag means another image), "revoked" (all tokens are),
// "busy" (429), "broken" (503) or "away".
type step struct {
	As, Gets string
	Registry string
}

// public is an image that everyone may read, so that it comes into the shared store.
var public = quirky.NewImage(false, "corpus, public", 2000)

var moved = quirky.NewImage(false, "corpus, moved", 3000)

// play is one sequence under way.
type play struct {
	t     *testing.T
	side  *harness.Sidemirror
	own   *quirky.Server
	image quirky.Image
	token string // the last of the pod's
	site  string // the address of the site, which may lend the daemon's login
	store *store // what hosts share
	open  bool   // the repository is or was public
}

const siteName = "site.example"

func TestTheCacheGivesACallerNoMoreThanTheRegistryWould(t *testing.T) {
	data, err := os.ReadFile("testdata/grants.json")
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var all []sequence
	if err := dec.Decode(&all); err != nil || len(all) == 0 {
		t.Fatalf("%d sequences, %v", len(all), err)
	}
	refusals, leaked, shared, sharedPrivate := 0, 0, 0, 0
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			p := begin(t, s)
			for i, x := range s.Steps {
				switch x.Gets {
				case "":
					p.change(x.Registry)
				case "everything":
					p.getsAll(i, x.As)
				case "nothing":
					refusals++
					n := p.leak(x.As) + p.leakToVisitor()
					leaked += n
					if n != 0 {
						t.Errorf("step %d: %s gets %d bytes", i+1, x.As, n)
					}
				default:
					t.Fatalf("step %d: gets %q", i+1, x.Gets)
				}
			}
			shared += len(public.Blobs)
			n := p.store.objects() - len(public.Blobs)
			if !p.open && n != 0 {
				sharedPrivate += n
				t.Errorf("%d blobs of a private repository are in the shared store", n)
			}
		})
	}
	t.Logf("%d sequences: %d callers were refused, and got %d bytes; %d public blobs were shared, and %d private ones", len(all), refusals, leaked, shared, sharedPrivate)
}

func begin(t *testing.T, s sequence) *play {
	t.Helper()
	p := &play{t: t, image: image, own: quirky.New(t, quirky.Options{Auth: quirky.Auth{
		Scheme: s.Scheme, Users: map[string]string{"daemon": "canary-of-the-daemon-41c7", "engine": "canary-of-the-engine-9e02"}, Private: []string{"team/"},
	}})}
	p.site, p.store = harness.FreeAddress(t), startStore(t)
	p.own.Add(repo, "v1", image)
	p.own.Add("open/app", "v1", image)
	o := harness.Options{
		Registries: []harness.Registry{
			{Name: p.own.Host(), Upstreams: []string{p.own.URL()}, ClientAuth: s.ClientAuth, Hosts: []string{siteName}},
			{Name: "other.test", Upstreams: []string{p.own.URL()}, ClientAuth: "relay"},
		},
		Secrets: []string{"canary-of-the-engine-9e02"},
		Env:     []string{"AWS_ACCESS_KEY_ID=corpus", "AWS_SECRET_ACCESS_KEY=canary-of-the-store-77b1"},
		Extra:   p.store.config() + fmt.Sprintf("\n[site]\ntls = \"off\"\nlisten = [%q]\nallow = [\"127.0.0.0/8\"]\nlogins = [%q]\nmax_requests = 0\n", p.site, p.own.Host()),
	}
	if s.DaemonLogin {
		o.Logins = map[string]string{p.own.Host(): daemon}
	}
	p.side = harness.Start(t, o)
	p.share()
	return p
}

// share lets an engine pull the public image, and waits until it is in the shared store. What is pulled
// later would be there soon too.
func (p *play) share() {
	p.t.Helper()
	p.own.Add("open/shared", "v1", public)
	client := harness.Client(p.t)
	anonymous := header(p.login(client, p.own.Host(), "open/shared", ""))
	for _, b := range public.Blobs {
		p.side.DoWith(client, http.MethodGet, "/v2/open/shared/blobs/"+b.Digest.String()+"?ns="+p.own.Host(), anonymous).Whole(p.t, b.Digest.String(), b.Bytes)
	}
	p.side.Eventually("what is public is shared", func() bool { return p.store.objects() == len(public.Blobs) })
}

// change changes the registry.
func (p *play) change(what string) {
	p.t.Helper()
	status := func(code int) func(*quirky.Options) { return func(o *quirky.Options) { o.Limit.Status = code } }
	switch what {
	case "public":
		p.open = true
		p.own.Set(func(o *quirky.Options) { o.Auth.Private = nil })
	case "private":
		p.own.Set(func(o *quirky.Options) { o.Auth.Private = []string{"team/"} })
	case "moved":
		p.own.Add(repo, "v1", moved)
		p.image = moved
	case "revoked":
		p.own.RevokeTokens()
	case "busy":
		p.own.Set(status(http.StatusTooManyRequests))
	case "broken":
		p.own.Set(status(http.StatusServiceUnavailable))
	case "away":
		p.own.Set(func(o *quirky.Options) {
			o.Intercept = func(quirky.Part, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
		})
	default:
		p.t.Fatalf("no such change of the registry: %q", what)
	}
}

// caller returns the client of a caller and what it sends in Authorization. A pod and a user log in
// as containerd does.
func (p *play) caller(who string) (*http.Client, string) {
	p.t.Helper()
	untrusted := harness.ClientAs(p.t, harness.Untrusted)
	basic := func(login string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(login)) }
	wrong := "engine:canary-that-is-wrong"
	switch who {
	case "engine":
		return harness.Client(p.t), ""
	case "pod", "a new pod":
		p.token = p.login(harness.Client(p.t), p.own.Host(), repo, engine)
		return harness.Client(p.t), p.token
	case "pod with its old token":
		return harness.Client(p.t), p.token
	case "user":
		return untrusted, p.login(untrusted, p.own.Host(), repo, engine)
	case "anonymous":
		return untrusted, ""
	case "wrong password":
		if token := p.login(untrusted, p.own.Host(), repo, wrong); token != "" {
			return untrusted, token
		}
		return untrusted, basic(wrong)
	case "wrong token":
		return untrusted, "Bearer token-of-no-user"
	case "token of another repository":
		return untrusted, p.login(untrusted, p.own.Host(), "open/app", "")
	case "token of another registry":
		// A token that sidemirror itself has made, for the same login and upstream.
		if token := p.login(untrusted, "other.test", repo, engine); strings.HasPrefix(token, "Bearer sidemirror.") {
			return untrusted, token
		}
		return untrusted, "Bearer sidemirror.AAAA"
	}
	p.t.Fatalf("no such caller: %q", who)
	return nil, ""
}

// login logs in at sidemirror's token endpoint; "" is anonymous. Where the registry itself wants the
// login, its token is sidemirror's own.
func (p *play) login(client *http.Client, registry, repository, login string) string {
	p.t.Helper()
	h := http.Header{}
	if login != "" {
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(login)))
	}
	scope := url.QueryEscape("repository:" + repository + ":pull")
	a := p.side.DoWith(client, http.MethodGet, "/v2/auth?service=sidemirror&scope="+scope+"&ns="+registry, h)
	var answer struct{ Token string }
	if json.Unmarshal(a.Body, &answer) != nil || answer.Token == "" {
		return ""
	}
	return "Bearer " + answer.Token
}

// requests are what an engine asks for, and what it then has.
func (p *play) requests() map[string][]byte {
	all := map[string][]byte{"manifests/v1": p.image.Bytes, "manifests/" + p.image.Digest.String(): p.image.Bytes}
	for _, b := range p.image.Blobs {
		all["blobs/"+b.Digest.String()] = b.Bytes
	}
	return all
}

func (p *play) getsAll(i int, who string) {
	p.t.Helper()
	client, authorization := p.caller(who)
	for what, want := range p.requests() {
		a := p.side.DoWith(client, http.MethodGet, p.path(what), header(authorization))
		if a.Status != http.StatusOK || !bytes.Equal(a.Body, want) {
			p.t.Errorf("step %d: %s gets %d and %d of %d bytes of %s: %.200s", i+1, who, a.Status, len(a.Body), len(want), what, a.Body)
		}
		if who != "anonymous" {
			continue
		}
		if a := p.visit(client, http.MethodGet, what); a.Status != http.StatusOK || !bytes.Equal(a.Body, want) {
			p.t.Errorf("step %d: a visitor of the site gets %d and %d of %d bytes of %s: %.200s", i+1, a.Status, len(a.Body), len(want), what, a.Body)
		}
	}
}

// leak returns how many bytes of the image a caller gets, each description of content counted as one.
func (p *play) leak(who string) (n int) {
	p.t.Helper()
	client, authorization := p.caller(who)
	for what, want := range p.requests() {
		for _, path := range []string{p.path(what), "/v2/" + p.own.Host() + "/" + repo + "/" + what} {
			n += p.gets(want, func(method string) harness.Answer {
				return p.side.DoWith(client, method, path, header(authorization))
			})
		}
	}
	return n
}

// leakToVisitor is leak for a visitor of the site, who is anonymous and may have the quota of the
// daemon's login.
func (p *play) leakToVisitor() (n int) {
	p.t.Helper()
	client := harness.ClientAs(p.t, harness.Untrusted)
	for what, want := range p.requests() {
		n += p.gets(want, func(method string) harness.Answer { return p.visit(client, method, what) })
	}
	return n
}

// visit asks the site for something.
func (p *play) visit(client *http.Client, method, what string) harness.Answer {
	return harness.Fetch(client, method, "http://"+p.site+"/v2/"+repo+"/"+what, http.Header{"Host": {siteName}})
}

// gets returns how many bytes of want there are in the responses to GET and HEAD.
func (p *play) gets(want []byte, ask func(method string) harness.Answer) (n int) {
	p.t.Helper()
	a := ask(http.MethodGet)
	if a.Status < 300 && len(a.Body) > 0 && bytes.Contains(want, a.Body) {
		n += len(a.Body)
	}
	if head := ask(http.MethodHead); head.Status < 300 && p.describes(head) {
		n++
	}
	return n
}

// describes reports whether a response to HEAD names a part of the image.
func (p *play) describes(head harness.Answer) bool {
	digest := head.Header.Get("Docker-Content-Digest")
	for what := range p.requests() {
		if digest == p.image.Digest.String() || digest != "" && strings.HasSuffix(what, digest) {
			return true
		}
	}
	return false
}

func (p *play) path(what string) string { return "/v2/" + repo + "/" + what + "?ns=" + p.own.Host() }

func header(authorization string) http.Header {
	h := http.Header{}
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	return h
}
