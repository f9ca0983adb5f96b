package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

func TestWatchdogAsksThroughTheListener(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.expect("WATCHDOG=1")
	r.expect("WATCHDOG=1")
	w := new(watchdog)
	w.url.Store(new("http://" + freeAddr(t) + "/v2/"))
	if err := w.ask(t.Context()); err == nil {
		t.Error("it reports an answer although nothing listens")
	}
}

// A client used to stay out of the log with "User-Agent: sidemirror-watchdog".
func TestOnlyTheWatchdogsOwnRequestsAreLeftOutOfTheLog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	addr := freeAddr(t)
	file := writeConfig(t, fmt.Sprintf("listen = [%q]\n[cache]\ndir = ''\n", addr))
	r := begin(t, file, nil, withProxy)
	r.expect("WATCHDOG=1")
	r.expect("WATCHDOG=1")
	if log := r.log.String(); strings.Contains(log, "msg=request") {
		t.Errorf("the watchdog's requests are logged:\n%s", log)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "sidemirror-watchdog")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	waitFor(t, func() bool { return strings.Contains(r.log.String(), "msg=request") })
}

func TestWatchdogForgetsAnAddressBeforeAnotherProcessCanHaveIt(t *testing.T) {
	addr := freeAddr(t)
	begin(t, writeConfig(t, named("one", addr)), nil)
	w := new(watchdog)
	w.url.Store(new("http://" + addr + "/v2/"))
	if err := w.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		known := false
		w.own.Range(func(any, any) bool { known = true; return false })
		return !known
	})
}

// With all slots of untrusted users taken, the watchdog would otherwise get no answer, and systemd
// would kill the daemon.
func TestConnectionsOfTheDaemonsOwnUserAreTrusted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	d := newDaemon(config.Source{}, io.Discard)
	d.trust.Store(peer.NewTrust(nil, nil, nil)) // no user is trusted by the configuration
	if !d.trusts(accepted) {
		t.Error("a connection of this process's user is not trusted")
	}
}
