package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// withCache returns a configuration with its cache in dir.
func withCache(t *testing.T, dir, more string) *config.Config {
	t.Helper()
	if !strings.Contains(more, "min_free") { // the disk of the tests may be fuller than the default allows
		more = "min_free = \"0%\"\n" + more
	}
	return mustLoad(t, fmt.Sprintf("listen = [%q]\n[cache]\ndir = %q\n%s", freeAddr(t), dir, more))
}

// forTest makes a service as the daemon does, and returns what it logs.
func (s *caches) forTest(t *testing.T, c *config.Config) (service, *syncBuffer) {
	t.Helper()
	said := new(syncBuffer)
	log := logrus.New()
	log.SetOutput(said)
	svc, err := s.newService(c, handover.Handover{}, c.Listen, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	return svc, said
}

func TestProxyServesWithoutACacheThatCannotBeOpened(t *testing.T) {
	inTheWay := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var s caches
	c := withCache(t, filepath.Join(inTheWay, "cache"), "")
	svc, said := s.forTest(t, c)
	if n := strings.Count(said.String(), "level=error"); n != 1 || !strings.Contains(said.String(), "set cache.dir") || !reports(s.problem(), "cache-missing", "nothing is stored") {
		t.Errorf("%d errors in\n%s\nstatus %v", n, said, s.problem())
	}
	answer := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	req.Host = "127.0.0.1:305"
	if svc.ServeHTTP(answer, req); answer.Code != http.StatusOK {
		t.Errorf("it answers %d: %s", answer.Code, answer.Body)
	}
	svc.Close()
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	svc, said = s.forTest(t, c)
	defer svc.Close()
	if said.String() != "" || s.problem() != nil || len(s.open) != 1 {
		t.Errorf("after the repair it reports %q and %v", said, s.problem())
	}
}

func TestReadOnlyCacheIsServed(t *testing.T) {
	dir := t.TempDir()
	// Modes do not keep root from writing, a file system does.
	if os.Getuid() == 0 {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("root without the right to mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	}
	var s caches
	svc, _ := s.forTest(t, withCache(t, dir, ""))
	svc.Close()
	err := os.Chmod(dir, 0o555)
	if os.Getuid() == 0 {
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	svc, said := s.forTest(t, withCache(t, dir, ""))
	defer svc.Close()
	if len(s.open) != 1 || !strings.Contains(said.String(), "nothing is added") || !reports(s.problem(), "cache-read-only", "nothing new is stored") {
		t.Errorf("%d open; log %q; status %v", len(s.open), said, s.problem())
	}
}

func TestADiskWithoutRoomIsAProblem(t *testing.T) {
	var s caches
	svc, _ := s.forTest(t, withCache(t, t.TempDir(), `min_free = "900TB"`))
	defer svc.Close()
	if !reports(s.problem(), "cache-disk-full", "less room available") {
		t.Errorf("%v", s.problem())
	}
	svc, _ = s.forTest(t, withCache(t, t.TempDir(), `min_free = "0%"`))
	defer svc.Close()
	if s.problem() != nil {
		t.Errorf("%v", s.problem())
	}
}

func TestReloadChangesTheLimitsOfAnOpenFolder(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var s caches
	first, _ := s.forTest(t, withCache(t, dir, ""))
	partial := filepath.Join(dir, "partial", "of-a-fill")
	if err := os.WriteFile(partial, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second, _ := s.forTest(t, withCache(t, link, ""))
	if len(s.open) != 1 || s.open[0].users != 2 {
		t.Fatalf("%d folders are open", len(s.open))
	}
	if _, err := os.Stat(partial); err != nil {
		t.Errorf("what was being fetched is gone: %v", err)
	}
	first.Close()
	if len(s.open) != 1 {
		t.Error("it was closed under the second")
	}
	second.Close()
	if len(s.open) != 0 {
		t.Error("it is still open")
	}
}

func TestReloadWithAnotherFolderClosesTheOldOneAfterItsStreams(t *testing.T) {
	old, next := t.TempDir(), t.TempDir()
	var s caches
	first, _ := s.forTest(t, withCache(t, old, ""))
	second, _ := s.forTest(t, withCache(t, next, ""))
	if len(s.open) != 2 {
		t.Fatalf("%d folders are open", len(s.open))
	}
	first.Close()
	if len(s.open) != 1 || s.open[0].path != next {
		t.Errorf("open are %+v", s.open)
	}
	second.Close()
}

func TestReloadCreatesARemovedFolderAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var s caches
	first, _ := s.forTest(t, withCache(t, dir, ""))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	second, said := s.forTest(t, withCache(t, dir, ""))
	defer second.Close()
	first.Close()
	if _, err := os.Stat(filepath.Join(dir, "partial")); err != nil || said.String() != "" {
		t.Errorf("%v; log %q", err, said)
	}
}

func TestRefusedConfigurationLeavesTheCacheAlone(t *testing.T) {
	dir := t.TempDir()
	var s caches
	first, _ := s.forTest(t, withCache(t, dir, ""))
	defer first.Close()
	bad := withCache(t, dir, "[registry.'a.example']\nca = '/nowhere/ca.pem'\n")
	if _, err := s.newService(bad, handover.Handover{}, bad.Listen, "test", logrus.New()); err == nil {
		t.Fatal("it was taken")
	}
	if len(s.open) != 1 || s.open[0].users != 1 {
		t.Errorf("open are %+v", s.open)
	}
}

// Counting takes seconds if there are many blobs.
func TestCacheIsNotCountedBeforeTheDaemonIsReady(t *testing.T) {
	dir := t.TempDir()
	var s caches
	keep(t, dir, "something")
	svc, _ := s.forTest(t, withCache(t, dir, "min_free = '0B'\n"))
	defer svc.Close()
	folder := s.open[0]
	if used := folder.Used(); used != 0 {
		t.Errorf("%d bytes were counted at the start", used)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	svc.Probe(ctx)
	waitFor(t, func() bool { return folder.Used() > 0 })
}

func TestEvictionsAreLogged(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"one of ten bytes", "another", "a third"} {
		keep(t, dir, text)
	}
	var s caches
	svc, said := s.forTest(t, withCache(t, dir, "max_size = '10B'\nmin_free = '0B'\n"))
	defer svc.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	svc.Probe(ctx)
	waitFor(t, func() bool { return strings.Contains(said.String(), "removed the content") })
	if !strings.Contains(said.String(), "files=2") && !strings.Contains(said.String(), "files=3") {
		t.Errorf("log %s", said)
	}
}

// keep stores a blob in a cache folder.
func keep(t *testing.T, dir, content string) {
	t.Helper()
	hex := digest.FromString(content).Encoded()
	at := filepath.Join(dir, "blobs", "sha256", hex[:2], hex)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoginDoesNotOpenTheCache(t *testing.T) {
	upstream := httptest.NewServer(http.NotFoundHandler())
	defer upstream.Close()
	dir := filepath.Join(t.TempDir(), "cache")
	host := strings.TrimPrefix(upstream.URL, "http://")
	c := withCache(t, dir, fmt.Sprintf("[registry.%q]\nupstreams = [%q]\n", host, upstream.URL))
	_ = Login(t.Context(), c, host, "", credential.Credential{Username: "me", Password: credential.NewSecret("x")}, "test")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
}

func TestStoppingLeavesCompleteContentAndWhatIsPresentOfTheRest(t *testing.T) {
	const small, endless = "a blob", "a blob that never ends"
	begun, release := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, digest.FromString(endless).String()) {
			_, _ = io.WriteString(w, small)
			return
		}
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-release
	}))
	dir, addr := t.TempDir(), freeAddr(t)
	file := writeConfig(t, fmt.Sprintf("listen = [%q]\nshutdown_timeout = '50ms'\n[cache]\ndir = %q\nmin_free = '0B'\n[registry.'a.example']\nupstreams = [%q]\n", addr, dir, upstream.URL))
	told := sdnotifytest.Listen(t)
	d := newDaemon(config.Source{Path: file}, new(syncBuffer))
	d.build = func(c *config.Config, found handover.Handover, at []netip.AddrPort, log *logrus.Logger) (service, error) {
		return d.caches.newService(c, found, at, "test", log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	<-told

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	blob := func(content string) (string, error) {
		resp, err := client.Get("http://" + addr + "/v2/o/i/blobs/" + digest.FromString(content).String() + "?ns=a.example")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if got, err := blob(small); err != nil || got != small {
		t.Fatalf("got %q, %v", got, err)
	}
	cut := make(chan error, 1)
	go func() { _, err := blob(endless); cut <- err }()
	<-begun
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if err := <-cut; err == nil {
		t.Error("half a blob ended cleanly")
	}
	close(release)
	upstream.Close()
	data, err := filepath.Glob(filepath.Join(dir, "partial", "sha256-"+digest.FromString(endless).Encoded()+"-*.data"))
	if err != nil || len(data) != 1 {
		t.Fatalf("what is present of half a blob: %v, %v", data, err)
	}
	if b, err := os.ReadFile(data[0]); err != nil || string(b) != "the beginning" {
		t.Errorf("what is present of half a blob is %q, %v", b, err)
	}
	hex := digest.FromString(small).Encoded()
	if got, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", hex[:2], hex)); err != nil || string(got) != small {
		t.Errorf("kept is %q, %v", got, err)
	}
}

// reports reports whether p is of that code and contains text.
func reports(p *problem.Problem, code problem.Code, text string) bool {
	return p != nil && p.Code == code && p.Hint != "" && strings.Contains(p.Error(), text)
}
