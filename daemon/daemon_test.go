package daemon

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
)

func TestUpstreamsAreProbedWhenReadyAndAfterAReload(t *testing.T) {
	r := begin(t, writeConfig(t, named("one", freeAddr(t))), nil) // which sees to it that READY=1 came first
	r.expect(probed)
	r.sighup()
	r.expect("RELOADING=1")
	r.expect("READY=1")
	r.expect(probed)
}

func TestReloadLetsStreamsOfTheOldConfigurationFinish(t *testing.T) {
	release := make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), lasting(release))
	body := stream(t, addr)
	r.rewrite(named("two", addr))
	r.sighup()
	r.expect("RELOADING=1\nMONOTONIC_USEC=")
	r.expect("READY=1")
	wantAnswer(t, addr, "two")
	select {
	case <-r.fakes[0].closed:
		t.Error("the old one was closed under its stream")
	default:
	}
	close(release)
	if got, err := io.ReadAll(body); err != nil || string(got) != "begun done" {
		t.Errorf("the stream gave %q, %v", got, err)
	}
	<-r.fakes[0].closed
}

func TestFaultyFileIsReportedWithLineAndHint(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.rewrite(named("two", addr) + "hosst = []\n")
	r.sighup()
	r.expect(`unknown key "hosst" (did you mean "hosts"?)`)
	wantAnswer(t, addr, "one")
	if log := r.log.String(); !strings.Contains(log, "config.toml:4:1") || !strings.Contains(log, "level=error") {
		t.Errorf("the log does not say where:\n%s", log)
	}
	r.rewrite(named("three", addr))
	r.sighup()
	r.expect("READY=1\nSTATUS=serving every registry on " + addr + "\n")
	wantAnswer(t, addr, "three")
}

func TestProxyThatCannotBeMadeKeepsTheOldConfiguration(t *testing.T) {
	addr, other := freeAddr(t), freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.mu.Lock()
	r.fail = errors.New("no such certificate")
	r.mu.Unlock()
	r.rewrite(named("two", other))
	r.sighup()
	r.expect("the configuration on disk is not in force: no such certificate")
	wantAnswer(t, addr, "one")
	if _, err := get(t, other); err == nil {
		t.Error("the new address is served nevertheless")
	}
}

func TestChangedListenMovesTheDaemon(t *testing.T) {
	first, second := freeAddr(t), freeAddr(t)
	r := begin(t, writeConfig(t, named("one", first)), nil)
	r.rewrite(named("two", first, second))
	r.sighup()
	r.expect(second)
	wantAnswer(t, first, "two")
	wantAnswer(t, second, "two")
	r.rewrite(named("three", second))
	r.sighup()
	r.expect("READY=1\nSTATUS=serving every registry on " + second)
	wantAnswer(t, second, "three")
	if got, err := get(t, first); err == nil {
		t.Errorf("the old address still answers %q", got)
	}
}

func TestReloadWithATakenAddressKeepsTheOldConfiguration(t *testing.T) {
	addr, free := freeAddr(t), freeAddr(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := begin(t, writeConfig(t, named("one", addr)), nil, func(d *daemon) { d.retryEvery = 10 * time.Millisecond })
	r.rewrite(named("two", free, taken.Addr().String()))
	r.sighup()
	r.expect("the address is taken by")
	wantAnswer(t, addr, "one")
	if _, err := get(t, free); err == nil {
		t.Error("one of the new addresses is served")
	}
	_ = taken.Close()
	waitFor(t, func() bool {
		got, err := get(t, free)
		return err == nil && got == "two"
	})
	if n := strings.Count(r.log.String(), "level=error"); n > 3 {
		t.Errorf("the fault was logged %d times:\n%s", n, r.log)
	}
}

func TestLogLevelIsReloaded(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)+"[log]\nlevel = 'error'\n"), nil)
	if log := r.log.String(); log != "" {
		t.Errorf("at error it logged %s", log)
	}
	r.rewrite(named("one", addr) + "[log]\nformat = 'json'\n")
	r.sighup()
	r.expect("READY=1")
	if log := r.log.String(); !strings.HasPrefix(log, `{"addresses":`) {
		t.Errorf("after the reload it logged %s", log)
	}
}

func TestStartFailsIfAnAddressIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := writeConfig(t, named("one", freeAddr(t), taken.Addr().String()))
	d := newDaemon(config.Source{Path: file}, io.Discard)
	d.build = func(*config.Config, handover.Handover, []netip.AddrPort, *logrus.Logger) (service, error) {
		t.Error("a proxy was made nevertheless")
		return nil, nil
	}
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "the address is taken by") {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationIsReloadedWhenTheFileChanges(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.rewrite(named("two", addr))
	r.expect("RELOADING=1")
	r.expect("READY=1")
	wantAnswer(t, addr, "two")
	r.rewrite("nonsense")
	r.expect("the configuration on disk is not in force")
	wantAnswer(t, addr, "two")
}
