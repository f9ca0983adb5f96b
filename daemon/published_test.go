package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// serving is a daemon that serves a configuration, without its own loop.
func serving(t *testing.T, text string, log *bytes.Buffer) (d *daemon, c *config.Config) {
	t.Helper()
	c, err := config.Load(writeConfig(t, fmt.Sprintf("listen = [%q]\n[cache]\ndir = \"\"\n%s", freeAddr(t), text)), nil)
	if err != nil {
		t.Fatal(err)
	}
	d = newDaemon(config.Source{}, log)
	svc, err := d.caches.newService(c, handover.Handover{}, c.Listen, "test", d.log)
	if err != nil {
		t.Fatal(err)
	}
	d.work, d.checkPort, d.sockets = t.Context(), allowPort, newSockets(nil)
	change, err := d.sockets.prepare(t.Context(), c.Listen)
	if err != nil {
		t.Fatal(err)
	}
	d.server = d.newServer()
	d.commit(c, handover.Handover{}, svc, change)
	t.Cleanup(func() {
		_ = d.server.Close()
		d.accepting.Wait()
		d.handler.get().retire()
	})
	return d, c
}

// readPublished reads the file until done says that it has what is expected.
func readPublished(t *testing.T, file, what string, done func(state.State) bool) {
	t.Helper()
	for range 1000 {
		s, err := state.Read(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil && done(s) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the state never shows %s", what)
}

func TestTheStateShowsCallersThatAreNotTrusted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir+":/other")
	var log bytes.Buffer
	d, c := serving(t, "[trust]\nuids = [4711]\n", &log)
	ctx, cancel := context.WithCancel(t.Context())
	d.tasks.Go(func() { d.keepStatus(ctx, 10*time.Millisecond) })
	defer d.tasks.Wait()
	defer cancel()

	for range 3 {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request(t, "http://"+c.Listen[0].String()+"/v2/"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	file := filepath.Join(dir, "state.json")
	readPublished(t, file, "this process", func(s state.State) bool {
		return len(s.Refused) == 1 && s.Refused[0].UID == uint32(os.Getuid()) && s.Refused[0].Requests == 3 && !s.Refused[0].UserTrusted
	})

	// The configuration that replaces it trusts the caller.
	d.trust.Store(peer.NewTrust([]uint32{uint32(os.Getuid())}, []string{"*"}, nil))
	readPublished(t, file, "that the caller is trusted", func(s state.State) bool { return len(s.Refused) == 0 })
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAStateThatCannotBeWrittenIsLoggedOnce(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(t.TempDir(), "missing"))
	var log bytes.Buffer
	d, _ := serving(t, "[trust]\nuids = [4711]\n", &log)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request(t, "http://"+d.sockets.addresses()[0].String()+"/v2/"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for range 3 {
		d.publish()
	}
	if n := bytes.Count(log.Bytes(), []byte("status shows less")); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestTheWeaknessOfThisHostIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "", &log)
	for range 3 {
		d.reportWeakness()
	}
	want := 0
	if d.trust.Load().Weakness() != "" {
		want = 1
	}
	if n := bytes.Count(log.Bytes(), []byte("root's containers")); n != want {
		t.Errorf("%d lines, want %d:\n%s", n, want, log.String())
	}
}
