package boot

import (
	"strings"
	"testing"
	"time"
)

// A port that every user can take is reported, and what happens with it is shown: the other user
// receives the engines' requests as soon as sidemirror is stopped.
func TestAPortThatEveryUserCanTakeIsReported(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.addUser()
	for _, command := range []string{"sidemirror status", "sidemirror plan"} {
		if out, _ := m.try(command); strings.Contains(out, "ip_unprivileged_port_start") {
			t.Errorf("%s warns of a port that only root can take:\n%s", command, out)
		}
	}
	m.portsFrom(0)
	for _, command := range []string{"sidemirror status", "sidemirror plan"} {
		if out, _ := m.try(command); !strings.Contains(out, "ip_unprivileged_port_start") {
			t.Errorf("%s does not report that every user can take port 305:\n%s", command, out)
		}
	}
	m.loses(net, "305")
}

// loses has another user receive what engines send to a port when sidemirror is stopped.
func (m *machine) loses(net *internet, port string) {
	m.t.Helper()
	q := m.squat(port, "")
	m.run("systemctl stop sidemirror.socket sidemirror.service")
	pulls := m.pullOn(net, "lost"+port)
	time.Sleep(phase / 2)
	pulls.stop()
	q.stop()
	m.t.Logf("port %s: the other user bound it %d times and received %d requests", port, q.bound, q.received)
	if q.bound == 0 || q.received == 0 {
		m.t.Errorf("the other user of this test cannot take port %s: %s", port, q.report)
	}
}
