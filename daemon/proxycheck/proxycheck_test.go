package proxycheck

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// highPort has no objection to the ports of tests.
func highPort(netip.AddrPort) *problem.Problem { return nil }

// fakeSystemd runs no units, unless it has some.
type fakeSystemd struct {
	text  string
	err   error
	units map[string]sdnotify.UnitState
}

func (f fakeSystemd) ProxyStatus(context.Context) (string, error) { return f.text, f.err }

func (f fakeSystemd) State(_ context.Context, unit string) (sdnotify.UnitState, error) {
	return f.units[unit], f.err
}

// line is a systemd with a status line.
func line(text string, err error) Systemd { return fakeSystemd{text: text, err: err} }

func codes(r Report) []string {
	var list []string
	for _, p := range r.Problems {
		list = append(list, string(p.Code))
	}
	return list
}

// respondWith serves one response.
func respondWith(t *testing.T, status int, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestCheckTellsSidemirrorFromOtherPrograms(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	_ = l.Close()
	for name, tt := range map[string]struct {
		address string
		line    Systemd
		answers bool
		codes   []string
	}{
		"sidemirror":               {respondWith(t, 200, "<title>sidemirror</title>"), line("serving 4 registries", nil), true, nil},
		"sidemirror by hand":       {respondWith(t, 200, "<title>sidemirror</title>"), line("", errors.New("no systemd")), true, nil},
		"sidemirror with problems": {respondWith(t, 200, "<title>sidemirror</title>"), line("serving; the disk is full; and more", nil), true, []string{"proxy-reports-problem"}},
		"text of an error":         {respondWith(t, 200, "<title>sidemirror</title>"), line("x; y", errors.New("no systemd")), true, nil},
		"refusing":                 {respondWith(t, 503, "sidemirror has no configuration"), line("refusing", nil), false, []string{"proxy-refuses"}},
		"another program":          {respondWith(t, 200, "nginx"), line("", nil), false, []string{"proxy-foreign"}},
		"no program":               {closed, line("", nil), false, []string{"proxy-down"}},
		"no address":               {"http://localhost", line("", nil), false, []string{"proxy-address-invalid"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := checker{listenerOf: sockdiag.Listener, checkPort: highPort, trusted: portowner.IsTrusted}
			r := c.check(t.Context(), tt.address, tt.line)
			if r.Answers != tt.answers || !slices.Equal(codes(r), tt.codes) {
				t.Errorf("answers %v, problems %q", r.Answers, codes(r))
			}
		})
	}
}

func TestCheckReportsThePortOnce(t *testing.T) {
	t.Parallel()
	p := &problem.Problem{Code: "port-unprivileged", Text: "any user can listen", Hint: "use another"}
	c := checker{listenerOf: sockdiag.Listener, trusted: portowner.IsTrusted, checkPort: func(netip.AddrPort) *problem.Problem { return p }}
	address := respondWith(t, 200, "sidemirror")
	for text, want := range map[string][]string{
		"serving": {"port-unprivileged"},
		"serving; any user can listen (use another)":    {"port-unprivileged"},
		"serving; something else is the case":           {"port-unprivileged", "proxy-reports-problem"},
		"serving; a; any user can listen (use another)": {"port-unprivileged", "proxy-reports-problem"},
	} {
		if r := c.check(t.Context(), address, line(text, nil)); !slices.Equal(codes(r), want) {
			t.Errorf("%q: problems %q, want %q", text, codes(r), want)
		}
	}
}

func TestCheckBeginsWithKnownProblemsAndRepeatsNone(t *testing.T) {
	t.Parallel()
	c := checker{listenerOf: sockdiag.Listener, trusted: portowner.IsTrusted, checkPort: highPort}
	known := &problem.Problem{Code: "configuration-not-in-force", Text: "the configuration on disk is not in force: a; b"}
	address := respondWith(t, 200, "sidemirror")
	for reported, want := range map[string]string{
		"serving; " + known.Text:                        "",
		"serving; the disk is full; " + known.Text:      "the disk is full",
		"serving; " + known.Text + "; the disk is full": "the disk is full",
		"serving": "",
	} {
		r := c.check(t.Context(), address, line(reported, nil), known)
		if r.Problems[0] != known || len(r.Problems) > 2 || (len(r.Problems) == 2) != (want != "") || want != "" && r.Problems[1].Text != want {
			t.Errorf("%q: %+v", reported, r.Problems)
		}
	}
}

// A real socket of another user, which responds like sidemirror.
func TestCheckNeverBelievesTheListenerOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	asked := make(chan struct{}, 10)
	l := listenAs(t, 65534)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		_, _ = w.Write([]byte("<title>sidemirror</title>"))
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	defer func() {
		_ = server.Close()
		<-done
	}()
	r := Check(t.Context(), "http://"+l.Addr().String(), line("serving", nil))
	if r.Answers || !slices.Equal(codes(r), []string{"proxy-port-taken"}) || !strings.Contains(r.Problems[0].Hint, "ss -ltnp") {
		t.Errorf("%+v", r)
	}
	if len(asked) > 0 {
		t.Error("it was sent a request")
	}
}

// listenAs opens a socket as another user: a thread that has become that user makes it.
func listenAs(t *testing.T, uid int) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	made := make(chan result)
	go func() {
		// The thread is not unlocked, so that it ends with this goroutine.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0); errno != 0 {
			made <- result{err: errno}
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		made <- result{l, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}

func TestProblemsKnownInDetailAreNotRepeatedFromTheStatusLine(t *testing.T) {
	detailed := []*problem.Problem{
		{Code: "login-refused", Text: "refused; held back", Hint: "log in"},
		{Code: "credentials-unreadable", Path: "/etc/a.json", Text: "not JSON", Hint: "repair it"},
	}
	url := respondWith(t, 200, "<title>sidemirror</title>")
	c := checker{listenerOf: sockdiag.Listener, checkPort: highPort, trusted: func(uint32) bool { return true }}
	for text, want := range map[string][]string{
		"serving; refused; held back (log in); /etc/a.json: not JSON (repair it)":                   {"login-refused", "credentials-unreadable"},
		"serving; refused; held back (log in); the disk is full; /etc/a.json: not JSON (repair it)": {reportedCode, "login-refused", "credentials-unreadable"},
	} {
		r := c.check(t.Context(), url, line(text, nil)).Detailed(detailed)
		if got := codes(r); !slices.Equal(got, want) {
			t.Errorf("%s: %q", text, got)
		}
		if want[0] == reportedCode && r.Problems[0].Text != "the disk is full" {
			t.Errorf("what is left is %q", r.Problems[0].Text)
		}
	}
}

func TestAConfigurationThatIsNotInForceIsReportedOnce(t *testing.T) {
	url := respondWith(t, 503, "sidemirror has no configuration")
	c := checker{listenerOf: sockdiag.Listener, checkPort: highPort, trusted: func(uint32) bool { return true }}
	known := &problem.Problem{Code: "configuration-not-in-force", Text: "the configuration on disk is not in force"}
	for _, code := range []problem.Code{"configuration-not-in-force", "no-configuration"} {
		detailed := []*problem.Problem{{Code: code, Text: "every request is refused", Hint: "check it"}, {Code: "other", Text: "other"}}
		r := c.check(t.Context(), url, line("refusing; every request is refused (check it)", nil), known).Detailed(detailed)
		if got, want := codes(r), []string{"configuration-not-in-force", "other"}; !slices.Equal(got, want) {
			t.Errorf("%s: %q", code, got)
		}
	}
}
