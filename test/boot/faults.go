package boot

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// trouble is what the internet does to sidemirror alone. Engines find all in order.
type trouble int

const (
	noTrouble trouble = iota
	errorTrouble
	hangTrouble
	cutTrouble // each layer breaks off once, and a small one before its header is sent
)

// trouble makes trouble for sidemirror, or ends it.
func (n *internet) trouble(kind trouble) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.troubled = kind
}

// troubles returns the trouble that there is for the client of a request.
func (n *internet) troubles(r *http.Request) trouble {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !strings.HasPrefix(r.UserAgent(), "sidemirror/") {
		return noTrouble
	}
	return n.troubled
}

// ServeHTTP is the front of both registries and of their token server, with the trouble that there is.
func (n *internet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	status := n.status
	n.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	switch n.troubles(r) {
	case errorTrouble:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case hangTrouble:
		<-r.Context().Done()
	default:
		n.front().ServeHTTP(w, r)
	}
}

// brokenBody breaks off after so many bytes.
type brokenBody struct {
	io.ReadCloser
	left int64
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the connection is lost")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// A fault befalls sidemirror before a pull. No pull may fail for it.
type fault struct {
	name       string
	begin, end func(m *machine, net *internet)
}

const cacheFolder = "/var/cache/sidemirror"

var faults = []fault{
	{"stopped", func(m *machine, _ *internet) {
		m.run("systemctl stop sidemirror.socket sidemirror.service")
	}, func(m *machine, _ *internet) {
		m.run("systemctl start sidemirror.socket sidemirror.service")
	}},
	{"killed", func(m *machine, _ *internet) {
		m.run("systemctl kill --signal=KILL sidemirror.service")
	}, settle},
	{"hung", func(m *machine, _ *internet) {
		m.run("systemctl kill --signal=STOP sidemirror.service")
	}, func(m *machine, net *internet) {
		settle(m, net)
		m.eventually("the watchdog has replaced the proxy that hung", func() error {
			_, err := m.try("grep -q '^State:.[SR]' /proc/$(systemctl show --property=MainPID --value sidemirror.service)/status")
			return err
		})
	}},
	{"full", func(m *machine, net *internet) {
		m.run("systemctl stop sidemirror.service && mount -t tmpfs -o size=64k,mode=0700 tmpfs " + cacheFolder +
			" && chown sidemirror: " + cacheFolder + " && { head -c 64k /dev/zero >" + cacheFolder + "/filler; true; }")
		m.run("systemctl start sidemirror.service")
	}, func(m *machine, net *internet) {
		m.run("systemctl stop sidemirror.service && umount " + cacheFolder + " && systemctl start sidemirror.service")
	}},
	{"upstream-fails", begin(errorTrouble), ended},
	{"upstream-breaks-off", begin(cutTrouble), ended},
	{"upstream-hangs", begin(hangTrouble), ended},
}

func begin(kind trouble) func(*machine, *internet) {
	return func(_ *machine, net *internet) { net.trouble(kind) }
}

// ended ends the trouble, and what sidemirror remembers of it.
func ended(m *machine, net *internet) {
	net.trouble(noTrouble)
	m.run("systemctl restart sidemirror.service")
}

// settle waits until the proxy runs again.
func settle(m *machine, _ *internet) {
	m.t.Helper()
	m.eventually("the proxy runs", func() error { return m.active("sidemirror.service") })
}

// pullDuring pulls a new public image during a fault, and returns how long that took. The image must
// come whole: engines verify its digests.
func (m *machine) pullDuring(t testing.TB, net *internet, f fault, p puller, repository string) time.Duration {
	t.Helper()
	net.public.Push(t, repository, "v1", shape(1<<20))
	// systemd limits how often a unit starts. Only the faults of many pulls together reach that.
	_, _ = m.try("systemctl reset-failed sidemirror.service sidemirror.socket")
	f.begin(m, net)
	began := time.Now()
	err := p.pull(m, reference(hub, repository))
	took := time.Since(began)
	if err != nil {
		t.Errorf("%s, fault %s: %v", p.name, f.name, err)
	}
	f.end(m, net)
	return took
}
