package mirrors

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
	"github.com/sidemirror/sidemirror/test/registry"
)

// As with Harbor's projects, the token server gives a token for the prefixed repository alone: its
// user may have what is below its own name.
func TestEnginesPullThroughAMirrorWithAPrefixAndATokenServerThatInsistsOnIt(t *testing.T) {
	mirror := registry.Start(t, registry.Options{Private: true})
	mirror.Push(t, mirror.User+"/library/app", "v1", registry.Shape{Index: true, Size: 200_000, Layers: 3})
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{
			Name: "docker.io", Upstreams: []string{mirror.URL.String() + "/v2/" + mirror.User}, Realms: []string{mirror.Realm},
		}},
		Extra:   fmt.Sprintf("\n[registry.%q]\nupstreams = [%q]\n", mirror.Host, mirror.URL),
		Logins:  map[string]string{mirror.Host: mirror.User + ":" + mirror.Password},
		Secrets: []string{mirror.Password},
	})
	newEngines(t, s).pull("library/app", "v1")
	list := s.Get("/v2/library/app/tags/list?ns=docker.io", nil)
	list.Whole(t, "the list of tags", []byte(`{"name":"library/app","tags":["v1"]}`))
	if all, _ := mirror.Requests("/v2/" + mirror.User + "/v2/"); all != 0 {
		t.Errorf("%d requests have the API in the place of the prefix", all)
	}
	s.DoWith(harness.ClientAs(t, harness.Untrusted), "GET", "/v2/library/app/manifests/v1?ns=docker.io", nil).Is(t, "an untrusted caller", 401)
}

func TestEnginesPullThroughAPullThroughCacheAndWithoutItWhenItIsGone(t *testing.T) {
	origin := registry.Start(t, registry.Options{})
	cache := registry.Start(t, registry.Options{CacheOf: origin})
	origin.Push(t, "library/app", "v1", registry.Shape{Index: true, Size: 300_000, Layers: 4})
	origin.Push(t, "library/app", "v2", registry.Shape{Index: true, Size: 300_000, Layers: 4})
	s := harness.Start(t, harness.Options{Cache: "none", Registries: []harness.Registry{
		{Name: "docker.io", Upstreams: []string{cache.URL.String(), origin.URL.String()}},
	}})
	e := newEngines(t, s)
	e.pull("library/app", "v1")
	if _, ours := cache.Requests("/v2/library/app/manifests/v1"); ours == 0 {
		t.Error("sidemirror did not ask the mirror for the tag")
	}
	if all, ours := cache.Requests("/v2/library/app/"); all == 0 || all != ours {
		t.Errorf("of %d requests to the mirror, %d are sidemirror's", all, ours)
	}
	cache.Stop()
	e.pull("library/app", "v2")
}

// The inner sidemirror learns from ns which of two registries with the same repository is meant.
func TestEnginesPullThroughASidemirrorBehindTLSForSeveralRegistries(t *testing.T) {
	hub, other := quirky.New(t, quirky.Options{}), quirky.New(t, quirky.Options{})
	ofHub, ofOther := quirky.NewImage(true, "hub", 200_000, 1000), quirky.NewImage(true, "other", 200_000, 1000)
	hub.Add("library/app", "v1", ofHub)
	other.Add("library/app", "v1", ofOther)
	inner := harness.Start(t, harness.Options{Registries: []harness.Registry{
		{Name: "docker.io", Upstreams: []string{hub.URL()}},
		{Name: "reg.test", Upstreams: []string{other.URL()}},
	}})
	address, ca := behindNginx(t, inner)
	mirror := "ns+https://" + address
	gone := "http://" + harness.FreeAddress(t)
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{
		{Name: "docker.io", Upstreams: []string{mirror, gone}, CA: ca},
		{Name: "reg.test", Upstreams: []string{mirror, gone}, CA: ca},
	}})
	e := newEngines(t, s)
	e.pull("library/app", "v1")
	if err := e.containerd.Pull(t.Context(), "reg.test/library/app:v1", ""); err != nil {
		t.Errorf("containerd, of the other registry: %v", err)
	}
	s.Get("/v2/library/app/manifests/v1?ns=docker.io", nil).Whole(t, "the manifest of docker.io", ofHub.Bytes)
	s.Get("/v2/library/app/manifests/v1?ns=reg.test", nil).Whole(t, "the manifest of reg.test", ofOther.Bytes)
	for _, blob := range ofHub.Blobs {
		if n := hub.Count(quirky.Registry, "GET", "/blobs/"+blob.Digest.String()); n != 1 {
			t.Errorf("the registry sent a blob %d times", n)
		}
	}
	if log := inner.Log(); !strings.Contains(log, "registry=reg.test") || !strings.Contains(log, "registry=docker.io") {
		t.Errorf("the inner sidemirror served:\n%s", log)
	}
}

// A site knows the registry from its name. This one wants a login, which the outer sidemirror has
// under that name.
func TestEnginesPullThroughTheSiteOfAnotherSidemirror(t *testing.T) {
	hub := quirky.New(t, quirky.Options{})
	image := quirky.NewImage(true, "site", 200_000, 1000)
	hub.Add("library/app", "v1", image)
	ca, certificate, key := registry.Certificate(t, "docker.mirror.test")
	address := harness.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	const password = "canary-of-the-site"
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "site.htpasswd")
	if err := os.WriteFile(users, fmt.Appendf(nil, "robot:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{hub.URL()}, Hosts: []string{"docker.mirror.test"}}},
		Extra:      fmt.Sprintf("\n[site]\nlisten = [%q]\ncert = %q\nkey = %q\nallow = [\"127.0.0.0/8\"]\nusers = %q\n", address, certificate, key, users),
		Secrets:    []string{password},
	})
	s := harness.Start(t, harness.Options{
		Hosts:      "127.0.0.1 localhost docker.mirror.test\n",
		Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{"https://docker.mirror.test:" + port}, CA: ca}},
		Logins:     map[string]string{"docker.mirror.test:" + port: "robot:" + password},
	})
	s.DoWith(harness.ClientAs(t, harness.Untrusted), "GET", "/v2/library/app/manifests/v1?ns=docker.io", nil).Is(t, "a caller for whom no login is used", 401)
	newEngines(t, s).pull("library/app", "v1")
}

// behindNginx puts nginx with TLS in front of a sidemirror.
func behindNginx(t *testing.T, inner *harness.Sidemirror) (address, ca string) {
	t.Helper()
	ca, certificate, key := registry.Certificate(t, "127.0.0.1")
	address = harness.FreeAddress(t)
	folder := t.TempDir()
	config := filepath.Join(folder, "nginx.conf")
	write(t, config, fmt.Sprintf(`
daemon off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    location / {
      proxy_pass %[5]s;
      proxy_http_version 1.1;
      proxy_buffering off;
    }
  }
}
`, folder, address, certificate, key, inner.URL()))
	cmd := exec.Command(process.Path(t, "nginx"), "-c", config, "-p", folder)
	process.Start(t, "nginx", cmd, func(string) error {
		_, err := process.Run(t.Context(), nil, process.Path(t, "curl"), "--silent", "--cacert", ca, "https://"+address+"/v2/")
		return err
	})
	return address, ca
}
