package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// content is a registry's: manifests by tag and digest, blobs by digest.
type content struct {
	*httptest.Server
	types, manifests, blobs map[string]string
}

func newContent(t *testing.T) *content {
	c := &content{types: map[string]string{}, manifests: map[string]string{}, blobs: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.Close)
	return c
}

func (c *content) serve(w http.ResponseWriter, r *http.Request) {
	_, name, _ := strings.Cut(r.URL.Path, "/app/")
	kind, name, _ := strings.Cut(name, "/")
	body, ok := c.blobs[name]
	if kind == "manifests" {
		if body, ok = c.manifests[name]; ok {
			w.Header().Set("Content-Type", c.types[name])
			w.Header().Set("Docker-Content-Digest", digest.FromString(body).String())
		}
	}
	if !ok && r.URL.Path != "/v2/" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
}

func (c *content) blob(text string) string {
	d := digest.FromString(text)
	c.blobs[d.String()] = text
	return fmt.Sprintf(`{"digest":%q,"size":%d}`, d, len(text))
}

func (c *content) manifest(body, mediaType string, names ...string) string {
	d := digest.FromString(body).String()
	for _, name := range append(names, d) {
		c.manifests[name], c.types[name] = body, mediaType
	}
	return d
}

func (c *content) image(architecture string, tags ...string) string {
	config := c.blob(fmt.Sprintf(`{"os":"linux","architecture":%q}`, architecture))
	return c.manifest(fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s,%s]}`, config, c.blob("base"), c.blob("layer for "+architecture)), ociManifest, tags...)
}

func (c *content) index(tag string, architectures ...string) {
	var list []string
	for _, a := range architectures {
		list = append(list, fmt.Sprintf(`{"digest":%q,"size":1,"platform":{"os":"linux","architecture":%q}}`, c.image(a), a))
	}
	c.manifest(fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(list, ",")), ociIndex, tag)
}

// serving is a host with a daemon that serves c as registry.example.
type serving struct {
	config, cache string
}

func serveContent(t *testing.T, c *content, more string) serving {
	t.Helper()
	s := serving{config: filepath.Join(t.TempDir(), "config.toml"), cache: filepath.Join(t.TempDir(), "cache")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	text := fmt.Sprintf("listen = [%q]\n[log]\nlevel = 'error'\n[cache]\ndir = %q\nmin_free = '0B'\n[registry.'registry.example']\nupstreams = [%q]\n%s", addr, s.cache, c.URL, more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, config.Source{Path: s.config, Environ: []string{"STATE_DIRECTORY=" + filepath.Dir(s.config)}}, "test")
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(15 * time.Second); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not listen after 15 s")
		}
	}
}

// run runs a command and gives what it printed.
func (s serving) run(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	return command(t, code, append([]string{"--config", s.config}, args...)...)
}

func TestPullWarmsTheCacheForTheRegistryGoneAway(t *testing.T) {
	c := newContent(t)
	c.index("1", "amd64", "arm64", "s390x")
	s := serveContent(t, c, "")
	out, _ := s.run(t, 0, "pull", "--platform", "linux/amd64,linux/arm64", "registry.example/app:1")
	wants(t, out, "registry.example/app:1: linux/amd64,linux/arm64, 5 parts, ", "  "+digest.FromString("base").String()+"  4 B\n", "registry.example/app:1: pulled in ")
	if strings.Count(out, digest.FromString("base").String()) != 1 {
		t.Errorf("a layer that two platforms share was fetched twice:\n%s", out)
	}
	var listed struct {
		Images []struct {
			Name      string
			Complete  bool
			Platforms []struct{ Name string }
		}
	}
	out, _ = s.run(t, 0, "cache", "ls", "--json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Images) != 1 || !listed.Images[0].Complete || len(listed.Images[0].Platforms) != 2 || listed.Images[0].Platforms[1].Name != "linux/arm64" {
		t.Errorf("%s", out)
	}
	c.Close()
	out, _ = s.run(t, 0, "pull", "--platform", "linux/arm64", "registry.example/app:1")
	wants(t, out, "pulled in ")
}

func TestAPullOfAllPlatformsOfAnImageWithOneTakesIt(t *testing.T) {
	c := newContent(t)
	d := c.image("s390x", "1")
	c.index("2", "amd64", "s390x")
	s := serveContent(t, c, "")
	out, _ := s.run(t, 0, "pull", "--platform=all", "registry.example/app:1", "registry.example/app@"+d, "registry.example/app:2")
	wants(t, out, "registry.example/app:1: 3 parts, ", "registry.example/app@"+d+": pulled", "registry.example/app:2: linux/amd64,linux/s390x, 5 parts")
}

func TestOneImageThatFailsDoesNotKeepTheOthers(t *testing.T) {
	c := newContent(t)
	c.image("amd64", "1")
	c.index("other", "s390x", "riscv64")
	lost := c.manifest(fmt.Sprintf(`{"layers":[{"digest":%q,"size":5}]}`, digest.FromString("lost")), ociManifest, "lost")
	long := c.manifest(strings.Replace(c.manifests["1"], `"size":4`, `"size":3`, 1), ociManifest, "long")
	c.manifest(`{"layers":[{"digest":"sha256:../../x","size":5}]}`, ociManifest, "hostile")
	s := serveContent(t, c, "")
	out, errs := s.run(t, exitFailed, "pull", "registry.example/app:none", "registry.example/app:other", "registry.example/app@"+lost,
		"registry.example/app@"+long, "registry.example/app:hostile", "registry.example/app:1")
	wants(t, out, "registry.example/app:1: pulled in ")
	wants(t, errs, "pulling registry.example/app:none: ", "answered 404",
		"pulling registry.example/app:other: the image does not exist for this platform, only for linux/s390x, linux/riscv64 (see --platform)",
		"pulling registry.example/app@"+lost+": "+digest.FromString("lost").String()+": ",
		"it is longer than the 3 bytes that the manifest says", "a manifest lists the digest", "5 of 6 images could not be pulled")
}

func TestAPullWithoutADaemonSaysHowToStartOne(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for addr, want := range map[string]string{
		l.Addr().String(): "connection refused",
		strings.TrimPrefix(stranger.URL, "http://"): "another program responds there",
	} {
		config := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(config, fmt.Appendf(nil, "listen = [%q]\n", addr), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs := command(t, exitFailed, "--config", config, "pull", "alpine", "busybox")
		wants(t, errs, "systemctl start sidemirror", "sidemirror serve", addr, want)
	}
}

func TestAPullThatWouldKeepNothingOrCannotBeMeantIsRefused(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("cache.dir = ''\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs := command(t, exitFailed, "--config", config, "pull", "alpine")
	wants(t, errs, "the cache is off")
	for _, args := range [][]string{{}, {"Alpine"}, {"--platform", "amd64", "alpine"}, {"--platform", "all,linux/amd64", "alpine"}, {"--jobs", "0", "alpine"}, {"--jobs", "65", "alpine"}} {
		command(t, exitUsage, append([]string{"--config", config, "pull"}, args...)...)
	}
}

func TestARelayedRegistryIsForEngines(t *testing.T) {
	c := newContent(t)
	c.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, c.URL))
		w.WriteHeader(http.StatusUnauthorized)
	})
	s := serveContent(t, c, "client_auth = 'relay'\n")
	_, errs := s.run(t, exitFailed, "pull", "registry.example/app")
	wants(t, errs, "pulling registry.example/app:latest: ", "pull it with an engine")
}

func TestABarIsForTerminals(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 100, "x")
	p.add(50)
	p.line(&out, "%d", 1)
	p.end()
	if out.String() != "1\n" {
		t.Errorf("%q", out.String())
	}
	if got := fit("registry.example/a/long/name:1", 10); got != "…ng/name:1" {
		t.Errorf("%q", got)
	}
}
