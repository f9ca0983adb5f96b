package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of the harness: what takes longer has gone wrong.
const patience = 20 * time.Second

// Sidemirror is a running daemon.
type Sidemirror struct {
	tb      testing.TB
	options Options
	dir     string
	listen  []string
	cmd     *exec.Cmd
	log     logBuffer

	exited chan struct{} // closed when the process is gone; then err is set
	err    error
	ended  bool // by Stop or Kill
}

// Start runs `sidemirror serve` and returns once it takes connections on its
// first address. It is stopped, and checked, when the test ends, unless Stop or
// Kill were called before.
func Start(tb testing.TB, o Options) *Sidemirror {
	tb.Helper()
	s := &Sidemirror{tb: tb, options: o, listen: o.Listen, dir: privateDir(tb, o.UID)}
	if s.listen == nil {
		s.listen = []string{FreeAddress(tb)}
	}
	s.writeConfig()
	s.run()
	tb.Cleanup(func() {
		if !s.ended {
			s.Stop()
		}
		if tb.Failed() {
			tb.Logf("sidemirror's log:\n%s", s.Log())
		}
	})
	return s
}

// Address is the host:port of its first listener; URL is http:// and that.
func (s *Sidemirror) Address() string { return s.listen[0] }

// URL is where it serves, without a slash at the end.
func (s *Sidemirror) URL() string { return "http://" + s.Address() }

// Dir is its private folder: config.toml, config.json, store.json, home.
func (s *Sidemirror) Dir() string { return s.dir }

// PID is its process id.
func (s *Sidemirror) PID() int { return s.cmd.Process.Pid }

// Log returns what sidemirror has logged. The lines of requests come some milliseconds after their
// responses, so that it waits until no more comes.
func (s *Sidemirror) Log() string {
	const pause = 20 * time.Millisecond
	last := s.log.String()
	for range 50 {
		time.Sleep(pause)
		now := s.log.String()
		if now == last {
			break
		}
		last = now
	}
	return last
}

// Stop sends SIGTERM, waits for the end, and fails the test unless it exits with
// 0, leaves no process of its group, and has printed no secret.
func (s *Sidemirror) Stop() {
	s.tb.Helper()
	if s.ended {
		return
	}
	s.end(syscall.SIGTERM)
	if s.err != nil {
		s.tb.Errorf("sidemirror after SIGTERM: %v", s.err)
	}
	if err := syscall.Kill(-s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		s.tb.Errorf("sidemirror left processes of its group %d behind", s.PID())
	}
	s.CheckSecrets("the log", s.Log())
}

// Kill sends SIGKILL and waits for the end.
func (s *Sidemirror) Kill() {
	s.tb.Helper()
	s.end(syscall.SIGKILL)
}

// Abort sends SIGABRT, at which sidemirror prints what its goroutines do, and waits for the end.
func (s *Sidemirror) Abort() {
	s.tb.Helper()
	s.end(syscall.SIGABRT)
}

// CheckSecrets fails the test if text, which is called name in the message,
// holds a secret that the daemon was given.
func (s *Sidemirror) CheckSecrets(name, text string) {
	s.tb.Helper()
	for _, secret := range s.options.secrets() {
		if secret != "" && strings.Contains(text, secret) {
			s.tb.Errorf("%s holds a secret (%d bytes of it)", name, len(secret))
		}
	}
}

// Reload writes the configuration and credentials that o stands for, sends
// SIGHUP, and returns. Listening addresses, user and environment stay. When the
// daemon is done is for the caller to see, by what it answers.
func (s *Sidemirror) Reload(o Options) {
	s.tb.Helper()
	o.UID, o.Secrets = s.options.UID, append(o.Secrets, s.options.secrets()...)
	s.options = o
	s.writeConfig()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.tb.Fatal(err)
	}
}

// SetLogins replaces the credentials file, as `docker login` does, without a
// signal. It must have been started with logins.
func (s *Sidemirror) SetLogins(logins map[string]string) {
	s.tb.Helper()
	s.options.Secrets = s.options.secrets()
	s.options.Logins, s.options.IdentityTokens = logins, nil
	s.writeFile("config.json", s.options.dockerConfig(s.tb), 0o600)
	time.Sleep(lookEvery) // the look of an earlier request serves those that come until then
}

// lookEvery is a little more than how often the daemon looks at a file of logins.
const lookEvery = 25 * time.Millisecond

// OpenFiles counts its file descriptors.
func (s *Sidemirror) OpenFiles() int {
	s.tb.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil {
		s.tb.Fatal(err)
	}
	return len(entries)
}

// Eventually waits until condition holds, and fails the test if it does not.
func (s *Sidemirror) Eventually(what string, condition func() bool) {
	s.tb.Helper()
	if !until(condition) {
		s.tb.Fatalf("not within %v: %s", patience, what)
	}
}

func until(condition func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if condition() {
			return true
		}
	}
	return false
}

// privateDir is like TempDir, but a folder that the daemon's user may reach:
// TempDir's parent is 0700 and root's.
func privateDir(tb testing.TB, uid uint32) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "sidemirror-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o700); err != nil {
		tb.Fatal(err)
	}
	if uid != 0 {
		for _, d := range []string{dir, filepath.Join(dir, "home")} {
			if err := os.Chown(d, int(uid), -1); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return dir
}

func (s *Sidemirror) writeConfig() {
	s.tb.Helper()
	credentials := ""
	if data := s.options.dockerConfig(s.tb); data != nil {
		credentials = s.writeFile("config.json", data, 0o600)
	}
	config := s.options.toml(s.listen, credentials, filepath.Join(s.dir, "home", "store.json"), filepath.Join(s.dir, "cache"))
	s.writeFile("config.toml", []byte(config), 0o644)
}

func (s *Sidemirror) run() {
	s.tb.Helper()
	command := []string{Binary(s.tb), "serve", "--config", filepath.Join(s.dir, "config.toml")}
	if s.options.Hosts != "" {
		command = s.withHosts(command)
	}
	s.cmd = exec.Command(command[0], command[1:]...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(s.dir, "home"), "STATE_DIRECTORY=" + filepath.Join(s.dir, "home")}, s.options.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	// A group of its own shows whether it leaves anybody behind; Pdeathsig ends it
	// where the test process is killed before it can.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.options.UID != 0 {
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.options.UID, Gid: s.options.UID}
	}
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatalf("start sidemirror: %v", err)
	}
	s.exited = make(chan struct{})
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	up := until(func() bool {
		select {
		case <-s.exited:
			return true
		default:
		}
		return s.answers()
	})
	select {
	case <-s.exited:
		s.ended = true
		s.tb.Fatalf("sidemirror ended at once: %v\n%s", s.err, s.Log())
	default:
	}
	if !up {
		s.Kill()
		s.tb.Fatalf("sidemirror does not answer on %s\n%s", s.Address(), s.Log())
	}
}

// answers reports whether the daemon serves: a connection alone is made as soon as
// it listens, which is before its cache is open.
func (s *Sidemirror) answers() bool {
	c, err := net.Dial("tcp", s.Address())
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // what it is for, the read says
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}

// withHosts makes command run with an /etc/hosts of its own. unshare and the shell
// exec what comes after them, so that the process id is the daemon's.
func (s *Sidemirror) withHosts(command []string) []string {
	s.tb.Helper()
	if os.Geteuid() != 0 {
		s.tb.Skip("an /etc/hosts of its own needs root")
	}
	hosts := s.writeFile("hosts", []byte(s.options.Hosts), 0o644)
	return append([]string{
		"unshare", "--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts,
	}, command...)
}

// end signals the process and waits; one that outlives the harness's patience is
// killed, and that fails the test.
func (s *Sidemirror) end(signal syscall.Signal) {
	s.tb.Helper()
	s.ended = true
	select {
	case <-s.exited:
		s.tb.Errorf("sidemirror had already ended: %v", s.err)
		return
	default:
	}
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.tb.Errorf("signal sidemirror: %v", err)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-s.exited:
	case <-late.C:
		s.tb.Errorf("sidemirror did not end within %v of %v", patience, signal)
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// logBuffer collects what the process prints.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
