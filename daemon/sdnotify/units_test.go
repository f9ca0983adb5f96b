package sdnotify

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/sidemirror/sidemirror/internal/sandbox"
)

// systemd answers each job with result, or never if that is empty.
type systemd struct {
	result string
	refuse string // name of the D-Bus error that answers each job

	properties map[string]any // by the unit's path and the property's name

	mu    sync.Mutex
	asked []string
	conns []net.Conn
	wait  sync.WaitGroup
}

// dial connects to s as to systemd's own socket: there is no bus and no Hello.
func (s *systemd) dial(context.Context) (*sdbus.Conn, error) {
	return sdbus.NewConnection(func() (*dbus.Conn, error) {
		ours, theirs := net.Pipe()
		s.mu.Lock()
		s.conns = append(s.conns, theirs)
		s.mu.Unlock()
		s.wait.Go(func() { s.serve(theirs) })
		c, err := dbus.NewConn(ours)
		if err != nil {
			return nil, err
		}
		return c, c.Auth([]dbus.Auth{dbus.AuthExternal("root")})
	})
}

func (s *systemd) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return
		case strings.Contains(line, "BEGIN"):
			s.answer(conn, in)
			return
		case strings.Contains(line, "AUTH EXTERNAL"):
			_, _ = conn.Write([]byte("OK 0123456789abcdef0123456789abcdef\r\n"))
		case strings.Contains(line, "AUTH"):
			_, _ = conn.Write([]byte("REJECTED EXTERNAL\r\n"))
		default:
			_, _ = conn.Write([]byte("ERROR\r\n"))
		}
	}
}

const job = dbus.ObjectPath("/org/freedesktop/systemd1/job/7")

func (s *systemd) answer(conn net.Conn, in *bufio.Reader) {
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		member, _ := call.Headers[dbus.FieldMember].Value().(string)
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(call.Serial())}}
		if path, _ := call.Headers[dbus.FieldPath].Value().(dbus.ObjectPath); member == "Get" {
			property, known := s.properties[string(path)+" "+call.Body[1].(string)]
			if !known {
				property = ""
			}
			value := dbus.MakeVariant(property)
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(value))
			reply.Body = []any{value}
			send(conn, reply)
			continue
		}
		if member == "DisableUnitFiles" {
			s.mu.Lock()
			s.asked = append(s.asked, fmt.Sprint(member, " ", call.Body[0], " ", call.Body[1]))
			s.mu.Unlock()
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf([]struct{ A, B, C string }{}))
			reply.Body = []any{[]struct{ A, B, C string }{}}
			send(conn, reply)
			continue
		}
		if member == "ResetFailedUnit" {
			s.mu.Lock()
			s.asked = append(s.asked, fmt.Sprint(member, " ", call.Body[0]))
			s.mu.Unlock()
			send(conn, reply)
			continue
		}
		if s.refuse != "" && strings.HasSuffix(member, "Unit") {
			reply.Type = dbus.TypeError
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(s.refuse)
		} else if strings.HasSuffix(member, "Unit") {
			s.mu.Lock()
			s.asked = append(s.asked, member+" "+call.Body[0].(string)+" "+call.Body[1].(string))
			s.mu.Unlock()
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(job))
			reply.Body = []any{job}
		}
		send(conn, reply)
		if s.result != "" && reply.Body != nil {
			s.mu.Lock()
			conns := s.conns
			s.mu.Unlock()
			for _, c := range conns { // the second of the two connections waits for the signal
				send(c, &dbus.Message{
					Type: dbus.TypeSignal,
					Headers: map[dbus.HeaderField]dbus.Variant{
						dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/systemd1")),
						dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.systemd1.Manager"),
						dbus.FieldMember:    dbus.MakeVariant("JobRemoved"),
						dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(uint32(0), job, "", "")),
					},
					Body: []any{uint32(7), job, "docker.service", s.result},
				})
			}
		}
	}
}

// send writes m without a serial number, since nothing refers to it.
func send(conn net.Conn, m *dbus.Message) { _ = m.EncodeTo(conn, binary.LittleEndian) }

func TestReloadWaitsForTheJobAndReportsItsResult(t *testing.T) {
	for name, test := range map[string]struct{ result, refuse, says string }{
		"done":   {"done", "", ""},
		"failed": {"failed", "", `ended with "failed"`},
		"no job": {"", "org.freedesktop.systemd1.NoSuchUnit", "docker.service"},
		"hangs":  {"", "", "did not end in time"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &systemd{result: test.result, refuse: test.refuse}
			defer s.wait.Wait()
			patience := time.Minute
			if name == "hangs" {
				patience = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := Units{s.dial}.Reload(ctx, "docker.service")
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("error: %v", err)
			}
			if test.refuse == "" && (len(s.asked) != 1 || s.asked[0] != "ReloadUnit docker.service replace") {
				t.Errorf("asked %q", s.asked)
			}
		})
	}
}

func TestReopenSocketsStartsTheProxyOnlyAfterAFailure(t *testing.T) {
	const path = "/org/freedesktop/systemd1/unit/sidemirror_2esocket ActiveState"
	for state, start := range map[string]bool{"failed": true, "active": false, "inactive": false, "": false} {
		s := &systemd{result: "done", properties: map[string]any{path: state}}
		reopened, err := Units{s.dial}.ReopenSockets(t.Context())
		s.wait.Wait()
		if err != nil || reopened != start {
			t.Errorf("%q: %v, %v", state, reopened, err)
		}
		if want := []string{"ResetFailedUnit sidemirror.service", "StartUnit sidemirror.service replace"}; start && !slices.Equal(s.asked, want) || !start && s.asked != nil {
			t.Errorf("%q: asked %q", state, s.asked)
		}
	}
}

func TestProxyIsStartedIfItDoesNotRunAndItsSocketsAreOpen(t *testing.T) {
	for _, c := range []struct {
		socket, proxy string
		start         bool
	}{
		{"active", "inactive", true}, {"active", "active", false}, {"active", "failed", false}, {"active", "activating", false},
		{"inactive", "inactive", false}, {"failed", "inactive", false},
	} {
		s := &systemd{result: "done", properties: map[string]any{
			"/org/freedesktop/systemd1/unit/sidemirror_2esocket ActiveState":  c.socket,
			"/org/freedesktop/systemd1/unit/sidemirror_2eservice ActiveState": c.proxy,
		}}
		started, err := Units{s.dial}.StartProxy(t.Context())
		s.wait.Wait()
		if err != nil || started != c.start {
			t.Errorf("%v: %v, %v", c, started, err)
		}
		if want := []string{"StartUnit sidemirror.service replace"}; c.start && !slices.Equal(s.asked, want) || !c.start && s.asked != nil {
			t.Errorf("%v: asked %q", c, s.asked)
		}
	}
}

func TestProxyStatusReturnsTheStatusLineOfTheUnit(t *testing.T) {
	s := &systemd{properties: map[string]any{"/org/freedesktop/systemd1/unit/sidemirror_2eservice StatusText": "serving; a problem"}}
	text, err := Units{s.dial}.ProxyStatus(t.Context())
	s.wait.Wait()
	if err != nil || text != "serving; a problem" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestMainPIDOfAUnit(t *testing.T) {
	const path = "/org/freedesktop/systemd1/unit/docker_2eservice MainPID"
	const state = "/org/freedesktop/systemd1/unit/docker_2eservice ActiveState"
	for name, test := range map[string]struct {
		state string
		value any
		pid   int
		fails bool
	}{
		"runs": {"active", uint32(4711), 4711, false}, "is reloaded": {"reloading", uint32(4711), 4711, false},
		"is being stopped": {"deactivating", uint32(4711), 0, false}, "is stopped": {"inactive", uint32(0), 0, false},
		"is no number": {"active", "4711", 0, true},
	} {
		s := &systemd{properties: map[string]any{path: test.value, state: test.state}}
		pid, err := Units{s.dial}.MainPID(t.Context(), "docker.service")
		s.wait.Wait()
		if pid != test.pid || (err != nil) != test.fails {
			t.Errorf("%s: %d, %v", name, pid, err)
		}
	}
	if _, err := (Units{func(context.Context) (*sdbus.Conn, error) { return nil, errors.New("no systemd") }}).MainPID(t.Context(), "docker.service"); err == nil {
		t.Error("no error without systemd")
	}
}

func TestSocketAddressesAreThoseThatTheSocketUnitOpens(t *testing.T) {
	const unit = "/org/freedesktop/systemd1/unit/sidemirror_2esocket "
	type listen struct{ Kind, Address string }
	whole := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:305"), netip.MustParseAddrPort("[::1]:305")}
	for name, test := range map[string]struct {
		load, active, file string
		want               []netip.AddrPort
	}{
		"open":                           {"loaded", "active", "enabled", whole},
		"open, but not at the next boot": {"loaded", "active", "disabled", whole},
		"closed after failures":          {"loaded", "failed", "enabled", whole},
		"stopped until the next boot":    {"loaded", "inactive", "enabled", whole},
		"stopped and disabled":           {"loaded", "inactive", "disabled", nil},
		"not installed":                  {"not-found", "inactive", "", nil},
	} {
		s := &systemd{properties: map[string]any{
			unit + "LoadState": test.load, unit + "ActiveState": test.active, unit + "UnitFileState": test.file,
			unit + "Listen": []listen{{"Stream", "127.0.0.1:305"}, {"Stream", "[::1]:305"}, {"Stream", "/run/x"}},
		}}
		got, err := Units{s.dial}.SocketAddresses(t.Context())
		s.wait.Wait()
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestStopWatcherStopsAndDisablesWhatIsNot(t *testing.T) {
	const unit = "/org/freedesktop/systemd1/unit/sidemirror_2dhosts_2eservice "
	const stop = "StopUnit sidemirror-hosts.service replace"
	disable := []string{"DisableUnitFiles [sidemirror-hosts.service] false", "DisableUnitFiles [sidemirror-hosts.service] true"}
	for name, test := range map[string]struct {
		load, active, file string
		asked              []string
	}{
		"runs":            {"loaded", "active", "enabled", append(slices.Clone(disable), stop)},
		"starts":          {"loaded", "activating", "enabled", append(slices.Clone(disable), stop)},
		"runs until boot": {"loaded", "active", "disabled", []string{stop}},
		"has failed":      {"loaded", "failed", "enabled", disable},
		"is off":          {"loaded", "inactive", "disabled", nil},
		"is masked":       {"masked", "inactive", "masked", nil},
		"is not there":    {"not-found", "inactive", "", nil},
	} {
		s := &systemd{result: "done", properties: map[string]any{unit + "LoadState": test.load, unit + "ActiveState": test.active, unit + "UnitFileState": test.file}}
		changed, err := Units{s.dial}.StopWatcher(t.Context())
		s.wait.Wait()
		if err != nil || changed != (test.asked != nil) || !slices.Equal(s.asked, test.asked) {
			t.Errorf("%s: %v, %v; asked %q", name, changed, err, s.asked)
		}
	}
}

func TestTheProxyRunsAsItsUnitSays(t *testing.T) {
	const unit = "/org/freedesktop/systemd1/unit/sidemirror_2eservice "
	properties := map[string]any{
		unit + "LoadState": "loaded", unit + "ActiveState": "active", unit + "User": "nobody", unit + "MainPID": uint32(4711),
		unit + "ProtectHome": "yes", unit + "PrivateTmp": true,
	}
	proxy := func() (sandbox.Service, bool) {
		t.Helper()
		s := &systemd{properties: properties}
		id, found, err := Units{s.dial}.Proxy(t.Context())
		s.wait.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return id, found
	}
	if id, found := proxy(); !found || id.UID != 65534 || id.GID == 0 || id.PID != 4711 || !slices.Contains(id.Hidden, "/root") || !slices.Contains(id.Hidden, "/tmp") {
		t.Errorf("%+v, %v", id, found)
	}
	properties[unit+"ActiveState"], properties[unit+"ProtectHome"], properties[unit+"PrivateTmp"] = "inactive", "no", false
	if id, _ := proxy(); id.PID != 0 || id.Hidden != nil {
		t.Errorf("%+v", id)
	}
	properties[unit+"LoadState"] = "not-found"
	if id, found := proxy(); found {
		t.Errorf("%+v", id)
	}
}

func TestRestartFailsWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		t.Skip("systemd runs here, and a test must not send it jobs")
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	if err := (Units{}).Restart(t.Context(), "containerd.service"); err == nil || !strings.Contains(err.Error(), "restart containerd.service") {
		t.Errorf("error: %v", err)
	}
}
