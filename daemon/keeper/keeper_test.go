package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// watched is a host's tree that a keeper maintains, with a running dockerd.
type watched struct {
	*fakeHost
	t    *testing.T
	log  *syncBuffer
	told sdnotifytest.Messages
	stop func() error
}

// expect waits until systemd is notified of want.
func (w *watched) expect(want string) {
	w.t.Helper()
	w.told.Wait(w.t, want, w.log.String)
}

// until waits until ok returns true. It calls ok whenever systemd is notified, and every few
// milliseconds.
func (w *watched) until(what string, ok func() bool) (took time.Duration) {
	w.t.Helper()
	began := time.Now()
	for !ok() {
		select {
		case <-w.told:
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(began) > 15*time.Second {
			w.t.Fatalf("%s did not come about; daemon.json: %s\nlog:\n%s", what, w.read("etc/docker/daemon.json"), w.log)
		}
	}
	return time.Since(began)
}

func watchHost(t *testing.T, engines []string, files map[string]string) *watched {
	t.Helper()
	return watchConfigured(t, engines, "listen = ['127.0.0.1:305']\n", files)
}

// watchConfigured is watchHost with a text of sidemirror's own configuration.
func watchConfigured(t *testing.T, engines []string, own string, files map[string]string, change ...func(*keeper)) *watched {
	t.Helper()
	fake := &fakeHost{root: t.TempDir(), store: "overlay2"}
	w := &watched{fakeHost: fake, t: t, log: new(syncBuffer), told: sdnotifytest.Listen(t)}
	mkdir(t, w.path("etc/sidemirror"))
	write(t, w.path("etc/sidemirror/config.toml"), own)
	for name, text := range files {
		mkdir(t, filepath.Dir(w.path(name)))
		write(t, w.path(name), text)
	}
	h := &hostconfig.Host{
		Root: w.root, Versions: map[string]string{engine.Docker: "20.10.24", engine.Containerd: "2.1.9"}, Units: fake, Running: fake, Present: engines,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	k := newKeeper(Settings{Source: config.Source{Root: w.root}, Options: Options{Engines: engines}, Host: h}, w.log)
	for _, f := range change {
		f(k)
	}
	go func() { done <- k.run(ctx) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
	w.expect("READY=1")
	return w
}

func TestEntryIsRestoredAndStoppingChangesNothing(t *testing.T) {
	w := watchHost(t, []string{engine.Docker, engine.Containerd}, map[string]string{"etc/docker/daemon.json": "{}", "etc/containerd/config.toml": "version = 2\n"})
	hub := "etc/containerd/certs.d/docker.io/hosts.toml"
	if !strings.Contains(w.read("etc/docker/daemon.json"), ourMirror) || !strings.Contains(w.read(hub), ourMirror) || w.count() != 1 {
		t.Fatalf("nothing was applied at the start; %d reloads\n%s", w.count(), w.log)
	}
	if err := os.RemoveAll(w.path("etc/containerd/certs.d")); err != nil {
		t.Fatal(err)
	}
	write(t, w.path("etc/docker/daemon.json"), `{"icc": true}`)
	w.until("sidemirror's entry", func() bool {
		now := w.read("etc/docker/daemon.json")
		return strings.Contains(now, ourMirror) && strings.Contains(now, "icc") && strings.Contains(w.read(hub), ourMirror)
	})
	w.until("a reload", func() bool { return w.count() == 2 })
	before := w.read("etc/docker/daemon.json")
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if w.read("etc/docker/daemon.json") != before || w.read(hub) == "" {
		t.Error("stopping changed something")
	}
}

func TestNewEnginesAndRegistriesAreConfigured(t *testing.T) {
	w := watchHost(t, []string{engine.Docker, engine.Containerd}, nil)
	hosts := "etc/containerd/certs.d/"
	mkdir(t, w.path("usr/bin"))
	write(t, w.path("usr/bin/containerd"), "")
	w.until("the new engine's configuration", func() bool { return strings.Contains(w.read(hosts+"docker.io/hosts.toml"), ourMirror) })

	replaceFile(t, w.path("etc/sidemirror/config.toml"), "[registry.'corp.example:5000']\n")
	w.until("the new registry", func() bool { return strings.Contains(w.read(hosts+"corp.example:5000/hosts.toml"), ourMirror) })

	replaceFile(t, w.path("etc/sidemirror/config.toml"), "nonsense")
	w.expect("the new configuration cannot be used")
	if w.read(hosts+"corp.example:5000/hosts.toml") == "" {
		t.Error("a faulty configuration took effect")
	}
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "")
	w.until("the registry to be forgotten", func() bool { return w.read(hosts+"corp.example:5000/hosts.toml") == "" })
}

func TestARegistryIsConfiguredWhileItHasALogin(t *testing.T) {
	var problem atomic.Bool
	logins := func(k *keeper) {
		k.settings.LoginFolder = "/var/lib/logins"
		folder := filepath.Join(k.settings.Host.Root, k.settings.LoginFolder)
		k.settings.LoggedIn = func() ([]string, error) {
			if problem.Load() {
				return nil, errors.New("they cannot be found out")
			}
			entries, _ := os.ReadDir(folder)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names, nil
		}
	}
	w := watchConfigured(t, []string{engine.Containerd}, "listen = ['127.0.0.1:305']\n", map[string]string{"etc/containerd/config.toml": "version = 2\n"}, logins)
	hosts := func(registry string) string { return w.read("etc/containerd/certs.d/" + registry + "/hosts.toml") }
	mkdir(t, w.path("var/lib/logins")) // after the start
	write(t, w.path("var/lib/logins/r.example"), "")
	w.until("the registry of the login", func() bool { return strings.Contains(hosts("r.example"), ourMirror) })
	write(t, w.path("var/lib/logins/q.example"), "")
	w.until("the second one", func() bool { return strings.Contains(hosts("q.example"), ourMirror) })

	problem.Store(true)
	if err := os.Remove(w.path("var/lib/logins/q.example")); err != nil {
		t.Fatal(err)
	}
	w.expect("they cannot be found out")
	if hosts("q.example") == "" {
		t.Error("a registry whose login cannot be found out lost its entry")
	}
	problem.Store(false)
	if err := os.Remove(w.path("var/lib/logins/r.example")); err != nil {
		t.Fatal(err)
	}
	w.until("the registries without a login to be restored", func() bool { return hosts("r.example")+hosts("q.example") == "" && hosts("docker.io") != "" })
}

func TestFaultyConfigurationAtTheStartIsWaitedOut(t *testing.T) {
	for name, own := range map[string]string{"unknown key": "nonsense = 1\n", "no address for engines": "listen = ['10.0.0.1:305']\n"} {
		t.Run(name, func(t *testing.T) {
			w := watchConfigured(t, []string{engine.Docker}, own, map[string]string{"etc/docker/daemon.json": "{}"})
			if got := w.read("etc/docker/daemon.json"); got != "{}" {
				t.Errorf("without a configuration it wrote %s", got)
			}
			if log := w.log.String(); !strings.Contains(log, "waiting for one that can") || !strings.Contains(log, "config.toml") {
				t.Errorf("the log does not report it:\n%s", log)
			}
			replaceFile(t, w.path("etc/sidemirror/config.toml"), "")
			w.until("sidemirror's entry", func() bool { return strings.Contains(w.read("etc/docker/daemon.json"), ourMirror) })
		})
	}
}

func TestSocketsAreReopenedWhenTheConfigurationIsRepaired(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, nil)
	opened := func() int64 { return w.reopened.Load() }
	w.until("a look at the start", func() bool { return opened() == 1 })
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "nonsense")
	w.expect("the new configuration cannot be used")
	if opened() != 1 {
		t.Error("opened for a faulty configuration")
	}
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "")
	w.until("a look at the repaired configuration", func() bool { return opened() == 2 })
	w.until("a line in the log", func() bool { return strings.Contains(w.log.String(), "sockets again") })
}

func TestProxyThatListensAtOtherAddressesIsStarted(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, nil)
	for own, start := range map[string]int64{
		"[guests]\nnetworks = ['docker0']\n": 1, "[metrics]\nlisten = ['127.0.0.1:9305']\n": 1, "[site]\nlisten = ['127.0.0.1:8443']\ntls = 'off'\n[registry.'docker.io']\nhosts = ['docker.example.com']\n": 1,
		"[cache]\nmax_size = '1GiB'\n": 0,
	} {
		before, opened := w.started.Load(), w.reopened.Load()
		replaceFile(t, w.path("etc/sidemirror/config.toml"), own)
		w.until("the configuration to be in force", func() bool { return w.reopened.Load() > opened })
		if start > 0 {
			w.until("the proxy to be started for "+own, func() bool { return w.started.Load() == before+start })
		} else if w.started.Load() != before {
			t.Errorf("%s: the proxy was started", own)
		}
	}
}

func TestRefusedFileIsLoggedOnce(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, map[string]string{"etc/docker/daemon.json": "{\n//\n}"})
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "[registry.'corp.example']\n")
	w.until("a round after the first", func() bool { return strings.Contains(w.log.String(), "reason=\"the file changed\"") })
	write(t, w.path("etc/docker/daemon.json"), "{}")
	w.until("sidemirror's entry", func() bool { return strings.Contains(w.read("etc/docker/daemon.json"), ourMirror) })
	if n := strings.Count(w.log.String(), "daemon.json:2: not valid JSON"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log)
	}
}

func TestRestartedEngineIsExaminedAgain(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, map[string]string{"etc/docker/daemon.json": "{}", "srv/other.json": "{}"})
	w.start("--config-file", "/srv/other.json")
	mkdir(t, w.path("run"))
	write(t, w.path("run/docker.pid"), "9")
	w.until("sidemirror's entry in the file of the new flags", func() bool { return strings.Contains(w.read("srv/other.json"), ourMirror) })
}

func TestFileBehindALinkInTheTreeIsWatched(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, map[string]string{"srv/docker.json": "{}", "etc/docker/x": ""})
	if err := os.Remove(w.path("etc/docker/daemon.json")); err != nil {
		t.Fatal(err)
	}
	symlink(t, "/srv/docker.json", w.path("etc/docker/daemon.json"))
	ours := func() bool { return strings.Contains(w.read("srv/docker.json"), ourMirror) }
	w.until("sidemirror's entry behind the link", ours)
	write(t, w.path("srv/docker.json"), "{}")
	w.until("sidemirror's entry again", ours)
}

// rewrites change name as programs do.
var rewrites = []func(t *testing.T, name, text string){
	write, // truncated, then written
	replaceFile,
	func(t *testing.T, name, text string) { // as an editor that keeps a backup
		_ = os.Rename(name, name+"~") // it may have been moved away by the one before
		write(t, name, text)
		_ = os.Remove(name + "~")
	},
}

// How soon it settles is measured by bench.
func TestScriptThatKeepsRewritingCostsOneReloadForEachPause(t *testing.T) {
	w := watchHost(t, []string{engine.Docker}, map[string]string{"etc/docker/daemon.json": "{}"})
	const rewritten = 300
	name := w.path("etc/docker/daemon.json")
	reloads, pauses, last := w.count(), 0, time.Now()
	for i := range rewritten {
		if time.Since(last) > quiet {
			pauses++ // on a busy machine, long enough to look like the end
		}
		last = time.Now()
		rewrites[rand.IntN(len(rewrites))](t, name, fmt.Sprintf(`{"debug": %v, "labels": ["n=%d"]}`, i%2 == 0, i))
		time.Sleep(rand.N(2 * time.Millisecond)) // the script's own pace
	}
	w.until("sidemirror's entry", func() bool {
		now := w.read("etc/docker/daemon.json")
		return strings.Contains(now, ourMirror) && strings.Contains(now, fmt.Sprintf("n=%d", rewritten-1)) && w.count() > reloads
	})
	if made := w.count() - reloads; made > 1+pauses {
		t.Errorf("%d reloads and %d pauses", made, pauses)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// The addresses at which systemd opens the proxy's sockets are where engines are pointed at, and no
// others.
func TestEnginesArePointedOnlyAtSocketsOfTheServiceManager(t *testing.T) {
	w := watchConfigured(t, []string{engine.Docker}, "", map[string]string{daemonJSON: "{}\n"}, func(k *keeper) { k.retry = 10 * time.Millisecond })
	w.until("daemon.json has the default address", func() bool { return strings.Contains(w.read(daemonJSON), ourMirror) })
	w.sockets.Store(&[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:205")})
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "# changed\n")
	w.until("daemon.json has the socket's address", func() bool { return strings.Contains(w.read(daemonJSON), "http://127.0.0.1:205") })
	replaceFile(t, w.path("etc/sidemirror/config.toml"), "listen = ['127.0.0.1:206']\n")
	w.expect("listen: systemd opens the sockets, and not at 127.0.0.1:206 (remove listen, and change the addresses with \"systemctl edit sidemirror.socket\"")
	if text := w.read(daemonJSON); !strings.Contains(text, "http://127.0.0.1:205") {
		t.Errorf("daemon.json: %s", text)
	}
	// Opened without a report of any change.
	w.sockets.Store(&[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:206")})
	w.until("daemon.json has the new address", func() bool { return strings.Contains(w.read(daemonJSON), "http://127.0.0.1:206") })
}
