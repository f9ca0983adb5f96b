package daemon

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// codes returns the codes of what is shown at that time, and where.
func codes(d *daemon, at time.Time) (all, errors, notes []string) {
	d.examine(at)
	for _, p := range d.health.Problems(at) {
		all = append(all, string(p.Code))
	}
	s := d.state()
	for _, p := range s.Problems {
		errors = append(errors, string(p.Code))
	}
	for _, p := range s.Notes {
		notes = append(notes, string(p.Code))
	}
	return all, errors, notes
}

func TestAnUpstreamOutOfReachIsAWarningAfterAWhile(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "[registry.\"r.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\n", &log)
	now := time.Now()
	weak, _, _ := codes(d, now) // what this host shows anyway
	d.activity.UpstreamResponded(observe.Exchange{Upstream: "127.0.0.1:1"})
	d.activity.ReachChanged("127.0.0.1:1", &oci.Error{Code: oci.Unavailable, Message: "127.0.0.1:1 cannot be reached: connection refused"})
	d.activity.ReachChanged("unconfigured.test", errors.New("no such host"))
	if all, _, _ := codes(d, now); !slices.Equal(all, weak) {
		t.Errorf("at once: %q", all)
	}
	all, errs, _ := codes(d, now.Add(30*time.Second))
	if len(all) != len(weak)+1 || all[0] != "upstream-unreachable" || len(errs) != 0 {
		t.Errorf("after a while: %q, errors %q", all, errs)
	}
	if p := d.health.Problems(now.Add(30 * time.Second))[0]; p.Error() != "127.0.0.1:1 cannot be reached: connection refused" || !strings.HasPrefix(p.Hint, "until it is, engines get what is stored") {
		t.Errorf("it is shown as %v, hint %q", p, p.Hint)
	}
	if text := d.trouble(); text != "" {
		t.Errorf("the status line has %q", text)
	}
	d.activity.ReachChanged("127.0.0.1:1", nil)
	if all, _, _ := codes(d, now.Add(time.Minute)); !slices.Equal(all, weak) {
		t.Errorf("within reach again: %q", all)
	}
}

func TestHintOfAMirrorOutOfReachNamesWhatIsAskedInstead(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "[registry.\"r.test\"]\nupstreams = [\"http://127.0.0.1:1/v2/hub\", \"http://127.0.0.1:2\", \"http://127.0.0.1:3\"]\n"+
		"[registry.\"s.test\"]\nupstreams = [\"http://127.0.0.1:4\"]\n", &log)
	if got := d.unreachableHint("127.0.0.1:1/hub"); !strings.HasPrefix(got, "sidemirror asks 127.0.0.1:2 and 127.0.0.1:3 instead") {
		t.Errorf("of a mirror: %q", got)
	}
	if got := d.unreachableHint("127.0.0.1:4"); !strings.HasPrefix(got, "until it is, engines get what is stored") {
		t.Errorf("of the only upstream: %q", got)
	}
}

func TestARateLimitThatIsUsedUpIsShownUntilItsReset(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "", &log)
	now := time.Now()
	weak, _, _ := codes(d, now)
	d.activity.RateLimited(observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "anonymous", Limit: 100, Remaining: 1, Seen: now})
	if all, _, _ := codes(d, now); !slices.Equal(all, weak) {
		t.Errorf("with one left: %q", all)
	}
	d.activity.RateLimited(observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "anonymous", Limit: -1, Seen: now, Reset: now.Add(time.Hour)})
	d.activity.RateLimited(observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "client", Limit: -1, Seen: now})
	d.examine(now)
	list := d.health.Problems(now)
	if len(list) != len(weak)+1 || list[0].Code != "rate-limit-used-up" || !strings.Contains(list[0].Hint, "sidemirror login docker.io") {
		t.Fatalf("with none left: %+v", list)
	}
	if n := strings.Count(log.String(), "rate-limit-used-up"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	if all, _, _ := codes(d, now.Add(2*time.Hour)); !slices.Equal(all, weak) {
		t.Errorf("after the reset: %q", all)
	}
	if !strings.Contains(log.String(), "a problem is over") {
		t.Errorf("its end is not logged:\n%s", log.String())
	}
}

func TestWithoutAConfigurationNothingElseOfItIsShown(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "", &log)
	d.line.refused("line 1: bad")
	if _, errs, _ := codes(d, time.Now()); !slices.Equal(errs, []string{"configuration-not-in-force"}) {
		t.Errorf("with the last good one in force: %q", errs)
	}
	if text := d.trouble(); text != "" || !strings.Contains(d.line.text(), "not in force: line 1: bad") {
		t.Errorf("the status line has %q and %q", d.line.text(), text)
	}
}

func TestEachProblemThatTheDaemonReportsHasAKind(t *testing.T) {
	known := map[problem.Code]bool{}
	for _, k := range health.Kinds() {
		if k.Title == "" || known[k.Code] {
			t.Errorf("%q has no title, or is there twice", k.Code)
		}
		known[k.Code] = true
	}
	for _, k := range health.Kinds() {
		for _, code := range k.DependsOn {
			if !known[code] {
				t.Errorf("%s depends on %s, which is not a kind", k.Code, code)
			}
		}
	}
}

func TestAnUpstreamOutOfReachIsAskedAgain(t *testing.T) {
	var log bytes.Buffer
	up := httptest.NewUnstartedServer(http.NotFoundHandler())
	addr := up.Listener.Addr().String()
	d, _ := serving(t, "[registry.\"r.test\"]\nupstreams = [\"http://"+addr+"\"]\n", &log)
	d.activity.Configured([]string{addr})
	_ = up.Listener.Close()
	d.handler.get().Probe(t.Context())
	unreachable := func() bool {
		return slices.ContainsFunc(d.activity.Activity(time.Now()).Upstreams, func(u activity.Upstream) bool { return u.Name == addr && !u.Reachable })
	}
	if !unreachable() {
		t.Fatal("the upstream is not known to be out of reach")
	}
	again := serveAt(t, addr)
	defer again.Close()
	d.rechecked = time.Time{}
	d.recheck(t.Context())
	d.tasks.Wait()
	if unreachable() {
		t.Error("the upstream still counts as out of reach")
	}
}

// serveAt serves an upstream at an address.
func serveAt(t *testing.T, addr string) *http.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	return s
}

func TestAConfigurationThatCannotBeStoredIsAProblemOfTheServiceAlone(t *testing.T) {
	for _, test := range []struct {
		folder string // systemd's STATE_DIRECTORY
		want   bool
	}{{"/var/lib/sidemirror", true}, {"", false}} {
		t.Setenv("STATE_DIRECTORY", test.folder)
		var log bytes.Buffer
		d, _ := serving(t, "", &log)
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.lastGood = config.LastGood(filepath.Join(file, "last-good-config"))
		d.saveLastGood()
		if _, errs, _ := codes(d, time.Now()); slices.Contains(errs, "state-unwritable") != test.want {
			t.Errorf("STATE_DIRECTORY=%s: errors %q", test.folder, errs)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		d.saveLastGood()
		if _, errs, _ := codes(d, time.Now()); slices.Contains(errs, "state-unwritable") {
			t.Errorf("after the repair: %q", errs)
		}
	}
}
