package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
)

func TestStatusLineShowsPresentProblemsOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth.json")
	const good = `{"auths":{"r.test":{"auth":"dTpwYXNzd29yZA=="}}}`
	replaceFile(t, file, good)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("the cache's file system cannot be made read-only: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	c := withCache(t, dir, fmt.Sprintf("[credentials]\nfiles = [%q]\n", file))
	d := newDaemon(config.Source{}, io.Discard)
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
	d.inForce("the test")
	defer func() {
		_ = d.server.Close()
		d.accepting.Wait()
	}()
	r := &running{t: t, log: new(syncBuffer), told: sdnotifytest.Listen(t)}
	ctx, cancel := context.WithCancel(t.Context())
	d.tasks.Go(func() { d.keepStatus(ctx, 20*time.Millisecond) })
	defer func() {
		cancel()
		d.tasks.Wait()
		d.handler.get().retire()
	}()

	replaceFile(t, file, `{"auths":`)
	r.expect("STATUS=serving every registry on " + c.Listen[0].String() + "; credential file " + file)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r.expect("; nothing new is stored: writing in " + dir)
	if text := d.line.text(); !strings.Contains(text, file) {
		t.Errorf("one trouble hides the other: %s", text)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	replaceFile(t, file, good)
	r.expect("STATUS=serving every registry on " + c.Listen[0].String() + "\n")
}

func TestFirstStatusLineShowsProblemsOfTheStart(t *testing.T) {
	inTheWay := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	file := writeConfig(t, fmt.Sprintf("listen = [%q]\n[cache]\ndir = %q\n", addr, inTheWay+"/cache"))
	r := &running{t: t, log: new(syncBuffer), told: sdnotifytest.Listen(t), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	d := newDaemon(config.Source{Path: file}, r.log)
	d.checkPort = allowPort
	d.build = func(c *config.Config, found handover.Handover, at []netip.AddrPort, log *logrus.Logger) (service, error) {
		return d.caches.newService(c, found, at, "test", log)
	}
	go func() { r.ended <- d.run(ctx) }()
	r.expect("READY=1\nSTATUS=serving every registry on " + addr + "; nothing is stored: opening the cache")
	resp, err := http.Get("http://" + addr + "/")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("it answers %v, %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
