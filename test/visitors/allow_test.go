package visitors

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestHostsOfPrivateNetworksAreServedAndNoOthers(t *testing.T) {
	r := start(t, "")
	if got := r.get(appManifest); got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		t.Fatalf("a host of the network gets %d: %s", got.Status, got.Says())
	}
	r.hub.Forget()
	outside := r.outsider("203.0.113.2", "203.0.113.0/24")
	for _, path := range []string{"/", "/v2/", "/v2/auth", appManifest, "/v2/" + public + "/blobs/" + image.Blobs[1].Digest.String(), "/nothing", "/v2/_catalog"} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
			got := r.ask(outside, method, path)
			if got.Status != http.StatusForbidden || bytes.Contains(got.Body, image.Bytes) {
				t.Errorf("%s %s from outside: %d %s", method, path, got.Status, got.Says())
			}
		}
	}
	// What an attacker writes into headers has no effect.
	for _, h := range [][]string{
		{"X-Forwarded-For", "172.30.9.2"}, {"X-Forwarded-For", "127.0.0.1"}, {"Forwarded", "for=172.30.9.2"}, {"X-Real-IP", "172.30.9.2"},
		{"X-Forwarded-For", "203.0.113.2, 172.30.9.2"}, {"CF-Connecting-IP", "172.30.9.2"}, {"True-Client-IP", "127.0.0.1"}, {"X-Client-IP", "::1"},
		{"X-Forwarded-For", "172.30.9.2", "X-Forwarded-Host", "localhost", "X-Forwarded-Proto", "http", "Authorization", basic(robot, robotPassword)},
	} {
		if got := r.ask(outside, http.MethodGet, appManifest, h...); got.Status != http.StatusForbidden {
			t.Errorf("from outside with %q: %d", h, got.Status)
		}
	}
	if n := len(r.hub.All()); n != 0 {
		t.Errorf("the registry was asked %d times for hosts that are refused", n)
	}
	for line := range strings.Lines(r.Log()) {
		if strings.Contains(line, "203.0.113.2") && !strings.Contains(line, "level=debug") {
			t.Errorf("any host on the internet can fill the log: %s", line)
		}
	}
	r.engineIsServed("meanwhile")
}

func TestNetworkThatComesIsServed(t *testing.T) {
	r := start(t, "")
	later := r.outsider("10.77.0.2", "10.77.0.0/24")
	if got := r.ask(later, http.MethodGet, "/"); got.Status != http.StatusForbidden {
		t.Fatalf("before: %d", got.Status)
	}
	for _, line := range []string{"route del 10.77.0.0/24 dev br-visitors", "address add 10.77.0.1/24 dev br-visitors"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	r.Eventually("the new network is served", func() bool { return r.ask(later, http.MethodGet, "/").Status == http.StatusOK })
}

func TestClientThatATrustedProxyNamesIsTheVisitor(t *testing.T) {
	r := start(t, "trusted_proxies = [\"172.30.9.2\"]\nallow = [\"198.51.100.0/24\"]\nmax_requests = 1\n")
	for _, tt := range []struct {
		headers []string
		want    int
	}{
		{[]string{"X-Forwarded-For", "198.51.100.7"}, 200},
		{[]string{"Forwarded", `for="198.51.100.8:4711";proto=https`}, 200},
		{[]string{"X-Forwarded-For", "198.51.100.9, 192.0.2.1"}, 403},
		{[]string{"X-Forwarded-For", "192.0.2.1", "Forwarded", "for=198.51.100.7"}, 403},
		{nil, 403},
	} {
		if got := r.get("/", tt.headers...); got.Status != tt.want {
			t.Errorf("%q: %d, want %d: %s", tt.headers, got.Status, tt.want, got.Says())
		}
	}
	limited := func(client string) (all []int) {
		for range 12 {
			all = append(all, r.get("/", "X-Forwarded-For", client).Status)
		}
		return all
	}
	if all := limited("198.51.100.20"); !slices.Contains(all, 429) {
		t.Errorf("requests of one client of the proxy: %v", all)
	}
	if all := limited("198.51.100.21"); all[0] != 200 {
		t.Errorf("requests of another client of the proxy: %v", all)
	}
}

func TestVisitorsAreNeverTrusted(t *testing.T) {
	r := start(t, "")
	r.engineIsServed("at first") // the private image is in the cache now
	for _, path := range []string{"/v2/" + private + "/manifests/v1", "/v2/" + private + "/manifests/" + image.Digest.String(), "/v2/" + private + "/blobs/" + image.Blobs[1].Digest.String(), "/v2/" + private + "/tags/list"} {
		if got := r.get(path); got.Status == http.StatusOK {
			t.Errorf("a visitor gets %s", path)
		}
	}
	// Names of this host, and a registry that is for this host alone.
	for _, host := range []string{"localhost", "127.0.0.1", gateway, "evil.example", hostOnly, siteName + ".evil.example", "localhost:305", "[::1]"} {
		got := r.get("/v2/"+public+"/manifests/v1", "Host", host)
		if got.Status == http.StatusOK || bytes.Contains(got.Body, []byte(hostOnly)) || bytes.Contains(got.Body, []byte(r.hub.Host())) {
			t.Errorf("Host %s: %d %s", host, got.Status, got.Body)
		}
	}
	for _, path := range []string{"/v2/" + hostOnly + "/" + public + "/manifests/v1", appManifest + "?ns=" + hostOnly} {
		if got := r.get(path); got.Status == http.StatusOK {
			t.Errorf("a registry of this host alone: %d %s", got.Status, got.Body)
		}
	}
	for _, path := range []string{"/", "/?live", "/?", "/metrics", "/status", "/v1/status", "/debug/pprof/", "/api", "/v2/_catalog", "/v2/_state"} {
		got := r.get(path)
		for _, name := range []string{"secret", r.hub.Host(), "172.30.9.1:305", r.Dir(), hostOnly, robot, "goroutine"} {
			if bytes.Contains(got.Body, []byte(name)) {
				t.Errorf("%s (%d) shows a visitor %q", path, got.Status, name)
			}
		}
		if path != "/" && path[0:2] != "/?" && got.Status == http.StatusOK {
			t.Errorf("a visitor gets %s: %s", path, got.Body)
		}
	}
	for _, request := range r.hub.Requests(quirky.Token, "", "") {
		if request.Authorization() != "" {
			return // by the engine, at the beginning
		}
	}
	t.Error("the engine has not used the login, so that the test shows nothing")
}

func TestVisitorsCannotTellWhichRegistriesThisHostServes(t *testing.T) {
	for name, site := range map[string]string{"without users": "", "with users": "users = \"USERS\"\n"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, site)
			for _, path := range []string{
				appManifest + "?ns=%s", "/v2/?ns=%s", "/v2/auth?ns=%s", "/v2/auth?ns=%s&scope=repository:a/b:pull",
				"/v2/auth?scope=repository:%s/a:pull", "/v2/%s/a/manifests/v1",
			} {
				for _, login := range []string{"", basic(ann, annPassword), basic(ann, "canary-guess")} {
					known, unknown := r.about(path, hostOnly, login), r.about(path, "no.example", login)
					if known != unknown {
						t.Errorf("%s with %q: of a registry that this host serves a visitor gets %s, of another one %s", path, login, known, unknown)
					}
				}
			}
		})
	}
}

// about returns the response to a request that names a registry, without that name.
func (r *rig) about(path, registry, authorization string) string {
	var login []string
	if authorization != "" {
		login = []string{"Authorization", authorization}
	}
	got := r.get(fmt.Sprintf(path, registry), login...)
	said := fmt.Sprintf("%d %q %q", got.Status, got.Header["Www-Authenticate"], got.Header["Oci-Namespace"])
	if got.Status != http.StatusOK { // each token is another one
		said += " " + string(got.Body)
	}
	return strings.ReplaceAll(said, registry, "NAME")
}

// logins returns how many tokens were fetched with the daemon's login.
func (r *rig) logins() (n int) {
	for _, request := range r.hub.Requests(quirky.Token, "", "") {
		if request.Authorization() != "" {
			n++
		}
	}
	return n
}

func TestPrivateImageNeverComesOutThroughTheQuota(t *testing.T) {
	r := start(t, "logins = [\"docker.io\"]\n")
	if got := r.get(appManifest); got.Status != http.StatusOK || r.logins() != 1 {
		t.Fatalf("a public image: %d, and the login was used %d times", got.Status, r.logins())
	}
	everything := func(repository string, of quirky.Image) {
		t.Helper()
		before := r.logins()
		for range 2 {
			for _, what := range []string{"manifests/v1", "manifests/" + of.Digest.String(), "blobs/" + of.Blobs[1].Digest.String(), "tags/list", "referrers/" + of.Digest.String()} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					if got := r.ask(r.guest, method, "/v2/"+repository+"/"+what); got.Status == http.StatusOK {
						t.Errorf("a visitor gets %s of %s", what, repository)
					}
				}
			}
		}
		if n := r.logins() - before; n != 0 {
			t.Errorf("the login was used %d times for %s", n, repository)
		}
	}
	everything(private, image)
	// It turns private, and what is pushed later is new.
	r.hub.Set(func(o *quirky.Options) { o.Auth.Private = []string{""} })
	r.hub.RevokeTokens()
	moved := quirky.NewImage(true, "pushed later", 1000)
	r.hub.Add(public, "v1", moved)
	everything(public, moved)
	r.engineIsServed("meanwhile")
}

func TestLoginIsNotLentWhenLittleOfItsRateLimitRemains(t *testing.T) {
	r := start(t, "logins = [\"docker.io\"]\n")
	spent := func(repository string) int {
		t.Helper()
		r.hub.Add(repository, "v1", image)
		before := r.logins()
		if got := r.get("/v2/" + repository + "/manifests/v1"); got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
			t.Fatalf("%s: %d %s", repository, got.Status, got.Says())
		}
		return r.logins() - before
	}
	if n := spent("library/one"); n != 1 {
		t.Fatalf("with the whole limit, the login was used %d times", n)
	}
	r.hub.Set(func(o *quirky.Options) {
		o.Limit.Header = http.Header{"Ratelimit-Limit": {"200;w=21600"}, "Ratelimit-Remaining": {"40;w=21600"}}
	})
	if n := spent("library/two"); n != 1 {
		t.Fatalf("before it is known that little remains, the login was used %d times", n)
	}
	if n := spent("library/three"); n != 0 {
		t.Errorf("when a fifth remains, the login was used %d times", n)
	}
	r.engineIsServed("meanwhile")
}

func TestRequestsBeyondTheLimitAreRefusedForAWhile(t *testing.T) {
	r := start(t, "max_requests = 2\n")
	served, refused := 0, 0
	client := &http.Client{Transport: r.transport(r.guest)}
	for range 60 {
		got := harness.Fetch(client, http.MethodGet, "https://"+siteName+"/", nil)
		switch got.Status {
		case http.StatusOK:
			served++
		case http.StatusTooManyRequests:
			refused++
			if got.Header.Get("Retry-After") == "" {
				t.Fatal("a refusal does not say when to come again")
			}
		default:
			t.Fatalf("%d %s", got.Status, got.Says())
		}
	}
	if served < 20 || refused == 0 {
		t.Errorf("%d requests were served and %d refused", served, refused)
	}
	neighbour := r.bridge.NewGuest("172.30.9.3")
	if got := r.ask(neighbour, http.MethodGet, "/"); got.Status != http.StatusOK {
		t.Errorf("another host gets %d", got.Status)
	}
	r.Eventually("the first host is served again", func() bool { return r.get("/").Status == http.StatusOK })
}

func TestLayersAtATimeAreLimitedForEachHost(t *testing.T) {
	r := start(t, "max_fills = 1\n")
	first, second := image.Blobs[1], image.Blobs[2]
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.hub.Set(func(o *quirky.Options) {
		o.Intercept = func(_ quirky.Part, _ http.ResponseWriter, q *http.Request) bool {
			if q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, first.Digest.String()) {
				once.Do(func() { close(began) })
				<-goOn
			}
			return false
		}
	})
	path := func(b quirky.Blob) string { return "/v2/" + public + "/blobs/" + b.Digest.String() }
	results := make(chan harness.Answer, 2)
	go func() { results <- r.get(path(first)) }()
	<-began
	go func() { results <- r.get(path(second)) }()
	neighbour := r.bridge.NewGuest("172.30.9.3")
	if got := r.ask(neighbour, http.MethodGet, path(image.Blobs[0])); got.Status != http.StatusOK {
		t.Errorf("another host gets %d meanwhile: %s", got.Status, got.Says())
	}
	r.engineIsServed("meanwhile")
	if n := r.hub.Count(quirky.Registry, http.MethodGet, path(second)); n != 0 {
		t.Errorf("the second layer was asked for while the first one was fetched")
	}
	close(goOn)
	for range 2 {
		// On a very busy machine the second request may have waited for too long.
		if got := <-results; got.Status != http.StatusOK && got.Status != http.StatusTooManyRequests {
			t.Errorf("%d: %s", got.Status, got.Says())
		}
	}
	if got := r.get(path(second)); !bytes.Equal(got.Body, second.Bytes) {
		t.Errorf("afterwards: %d %s", got.Status, got.Says())
	}
}

func TestBytesInASecondAreLimitedForEachHost(t *testing.T) {
	r := start(t, "rate = \"64KiB\"\n")
	large := quirky.NewImage(true, "large", 8<<20, 50<<10)
	r.hub.Add("library/large", "v1", large)
	path := func(i int) string { return "/v2/library/large/blobs/" + large.Blobs[i].Digest.String() }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+siteName+path(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: r.transport(r.guest)}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	// The other host has a rate of its own, and needs less than that.
	neighbour := r.bridge.NewGuest("172.30.9.3")
	if got := r.ask(neighbour, http.MethodGet, path(2)); !bytes.Equal(got.Body, large.Blobs[2].Bytes) {
		t.Errorf("another host gets %d: %s", got.Status, got.Says())
	}
	r.engineIsServed("meanwhile")
	cancel()
	// The whole layer would take two minutes.
	got, err := io.ReadAll(response.Body)
	if err == nil || len(got) == len(large.Blobs[1].Bytes) || !bytes.HasPrefix(large.Blobs[1].Bytes, got) {
		t.Errorf("8 MiB at 64 KiB/s: %d bytes came, %v", len(got), err)
	}
}
