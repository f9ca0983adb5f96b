package boot

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// phase is how long each disturbance of the squatting test goes on: eight of them take a minute.
const phase = 8 * time.Second

// Whatever happens to sidemirror, no other user of the host receives a request of an engine: its
// port is privileged. Every pull succeeds meanwhile, through sidemirror or past it.
func TestNoUserReceivesAnEnginesRequest(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb, p.newDeb)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.login(net)
			m.addUser()

			squatters := []*squatter{m.squat("305", ""), m.squat("305", "unshare --user --map-root-user ")}
			pulls := m.pullOn(net, "squat")
			for _, d := range []struct {
				name string
				once func()
			}{
				{"restarts", func() { _, _ = m.try("systemctl restart sidemirror.service") }},
				{"reloads", func() { _, _ = m.try("systemctl reload sidemirror.service sidemirror-hosts.service") }},
				{"typing errors in the configuration", m.mistype},
				{"kills", func() { _, _ = m.try("systemctl kill --signal=KILL sidemirror.service") }},
				{"crashes", func() { _, _ = m.try("systemctl kill --signal=ABRT sidemirror.service") }},
				{"stops", m.stopAndStart},
				{"failed starts", m.failToStart},
				{"upgrades", func() { m.reinstall(p.newDeb, p.deb) }},
			} {
				before, times := pulls.count(), 0
				for until := time.Now().Add(phase); time.Now().Before(until); times++ {
					d.once()
				}
				t.Logf("%s: %d times, %d pulls meanwhile", d.name, times, pulls.count()-before)
			}
			m.repair()
			pulls.stop()
			for _, q := range squatters {
				q.stop()
				if q.bound != 0 || q.received != 0 || q.other != 0 {
					t.Errorf("the other user bound the port %d times of %d and received %d requests:\n%s", q.bound, q.tries, q.received, q.report)
				}
				if q.tries < 1000 || q.refused != q.tries {
					t.Errorf("the other user tried %d times, and was refused %d times", q.tries, q.refused)
				}
				t.Logf("the other user tried to bind the port %d times", q.tries)
			}
			ours, direct := pulls.visits()
			t.Logf("%d pulls; the registries saw %d requests of sidemirror's and %d of engines", pulls.count(), ours, direct)
			if ours == 0 || direct == 0 || pulls.count() < 20 {
				t.Errorf("%d pulls made %d requests through sidemirror and %d past it: nothing was shown", pulls.count(), ours, direct)
			}
			m.through(net, "repaired")
		})
	}
}

// mistype puts an error into the configuration of a daemon that runs, restarts it with that, and
// takes the error out again.
func (m *machine) mistype() {
	m.write("/etc/sidemirror/config.toml", "lissten = 1\n", 0o644)
	time.Sleep(time.Second) // the daemon sees the file
	_, _ = m.try("systemctl restart sidemirror.service")
	time.Sleep(time.Second)
	m.write("/etc/sidemirror/config.toml", "", 0o644)
	time.Sleep(time.Second)
}

func (m *machine) stopAndStart() {
	m.run("systemctl stop sidemirror.socket sidemirror.service")
	time.Sleep(time.Second) // pulls go on
	_, _ = m.try("systemctl start sidemirror.socket sidemirror.service")
	time.Sleep(time.Second)
}

// failToStart has a service that ends as soon as it is started.
func (m *machine) failToStart() {
	m.dropIn("[Service]\nExecStart=\nExecStart=/bin/false\n")
	_, _ = m.try("systemctl restart sidemirror.service")
	time.Sleep(time.Second)
	m.dropIn("")
	_, _ = m.try("systemctl reset-failed sidemirror.service sidemirror.socket; systemctl start sidemirror.socket sidemirror.service")
	time.Sleep(time.Second)
}

// reinstall installs one version after the other.
func (m *machine) reinstall(debs ...string) {
	for _, deb := range debs {
		m.run("dpkg --force-confold --force-downgrade --install " + inside(deb))
	}
}

// repair brings sidemirror back after all that. On a busy host systemd's own helper process may fail
// to open a socket ("Failed to receive listening socket"): an administrator tries again.
func (m *machine) repair() {
	m.t.Helper()
	m.eventually("sidemirror is restarted", func() error {
		out, err := m.try("systemctl reset-failed sidemirror.service sidemirror.socket; systemctl restart sidemirror.socket sidemirror.service sidemirror-hosts.service")
		if err != nil {
			m.t.Logf("a restart failed: %v\n%s\n%q", err, out, m.journal("sidemirror.socket"))
		}
		return err
	})
	m.settled()
}

// A squatter is package localuser's, while it tries to bind a port.
type squatter struct {
	m      *machine
	file   string // its report
	report string

	tries, bound, refused, inUse, other, received int64
}

// squat starts a squatter under the prefix of a command line.
func (m *machine) squat(port, prefix string) *squatter {
	m.t.Helper()
	q := &squatter{m: m, file: fmt.Sprintf("%s/squat%s-%d", userHome, port, len(prefix))}
	m.as("%s%s squat %s %s &", prefix, localuser, port, q.file)
	m.eventually("the squatter runs", func() error {
		_, err := m.try("grep started " + q.file)
		return err
	})
	return q
}

// stop ends the squatter and reads its totals.
func (q *squatter) stop() {
	q.m.t.Helper()
	q.m.run("pkill --full --signal TERM 'squat .* " + q.file + "$'")
	q.m.eventually("the squatter has ended", func() error {
		q.report = q.m.run("cat " + q.file)
		last := strings.TrimSpace(q.report[strings.LastIndex(strings.TrimSpace(q.report), "\n")+1:])
		_, err := fmt.Sscanf(last, "tries=%d bound=%d refused=%d in_use=%d other=%d received=%d",
			&q.tries, &q.bound, &q.refused, &q.inUse, &q.other, &q.received)
		return err
	})
}

// expectNothing ends the squatter and fails the test if it got the port or received a request.
func (q *squatter) expectNothing() {
	q.m.t.Helper()
	q.stop()
	if q.bound != 0 || q.received != 0 || q.tries < 1000 {
		q.m.t.Errorf("of %d tries the other user got %s %d times, and received %d requests:\n%s", q.tries, q.file, q.bound, q.received, q.report)
	}
}

// pulling is engines that pull one new image after the other.
type pulling struct {
	net   *internet
	end   chan struct{}
	tasks sync.WaitGroup

	mu     sync.Mutex
	pulled []string // repositories
}

// pullOn starts to pull public images with every engine until stop is called. Each pull must
// succeed.
func (m *machine) pullOn(net *internet, name string) *pulling {
	p, t := &pulling{net: net, end: make(chan struct{})}, m.t
	for _, engine := range pullers {
		p.tasks.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-p.end:
					return
				default:
				}
				repository := fmt.Sprintf("acme/%s-%s-%d", name, engine.name, i)
				net.public.Push(t, repository, "v1", shape(1<<16))
				if err := engine.pull(m, reference(hub, repository)); err != nil {
					t.Errorf("pull %d of %s failed: %v", i, filepath.Base(repository), err)
				}
				p.mu.Lock()
				p.pulled = append(p.pulled, repository)
				p.mu.Unlock()
			}
		})
	}
	return p
}

func (p *pulling) stop() {
	close(p.end)
	p.tasks.Wait()
}

func (p *pulling) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pulled)
}

func (p *pulling) visits() (ours, direct int) {
	for _, repository := range p.pulled {
		o, d := p.net.visits(hub, repository)
		ours, direct = ours+o, direct+d
	}
	return ours, direct
}
