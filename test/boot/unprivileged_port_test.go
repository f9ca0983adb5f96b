package boot

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A port that every user can take is reported and refused. Both this and what happens with it are
// shown with the default port, after the administrator gave all ports to every user, and with 5115.
func TestAPortThatEveryUserCanTakeIsReported(t *testing.T) {
	const warning = "any user "
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.addUser()
	for _, command := range []string{"sidemirror status", "sidemirror plan"} {
		if out, _ := m.try(command); strings.Contains(out, warning) {
			t.Errorf("%s warns of a port that only root can take:\n%s", command, out)
		}
	}
	m.portsFrom(0)
	for _, command := range []string{"sidemirror status", "sidemirror plan"} {
		if out, err := m.try(command); err == nil || !strings.Contains(out, warning) {
			t.Errorf("%s does not report that every user can take port 305: %v\n%s", command, err, out)
		}
	}
	m.loses(net, "305")
	m.portsFrom(1024)

	m.write("/etc/sidemirror/config.toml", "listen = [\"127.0.0.1:"+formerPort+"\"]\n", 0o644)
	m.write("/etc/systemd/system/sidemirror.socket.d/listen.conf", "[Socket]\nListenStream=127.0.0.1:"+formerPort+"\n", 0o644)
	m.run("systemctl daemon-reload; systemctl stop sidemirror.service; systemctl restart sidemirror.socket sidemirror.service sidemirror-hosts.service")
	if out, err := m.try("sidemirror apply"); err == nil || !strings.Contains(out, "--allow-unprivileged-port") {
		t.Errorf("apply accepts port %s: %v\n%s", formerPort, err, out)
	}
	m.run("sidemirror apply --allow-unprivileged-port")
	for _, file := range engineFiles {
		m.eventually(file+" has the port", func() error { return m.configuredFor(formerPort, file) })
	}
	m.loses(net, formerPort)
	m.taken()
}

// taken has another user listen at sidemirror's port. No command takes that listener for sidemirror,
// and the engines' entries are removed.
func (m *machine) taken() {
	t := m.t
	t.Helper()
	m.run("systemctl stop sidemirror-hosts.service sidemirror.socket sidemirror.service")
	m.as("%s listen %s/taken 127.0.0.1:%s &", localuser, userHome, formerPort)
	m.eventually("the other user listens", func() error {
		if !strings.Contains(m.listening(formerPort), "localuser") {
			return errors.New("it does not")
		}
		return nil
	})
	for _, command := range []string{"sidemirror status", "sidemirror plan"} {
		m.eventually(command+" reports the other user's listener", func() error {
			out, err := m.try(command)
			if err == nil || !strings.Contains(out, userName) {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	_, _ = m.try("sidemirror apply")
	for _, file := range engineFiles {
		if err := m.configuredFor(formerPort, file); err == nil {
			t.Errorf("%s still has the port that another user took", file)
		}
	}
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
