package process

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// actEnv makes the test binary act as an engine, or as a user's program that looks like one.
const actEnv = "SIDEMIRROR_TEST_ACT"

func TestMain(m *testing.M) {
	if role := os.Getenv(actEnv); role != "" {
		if err := act(role); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// act plays a role until its standard input is closed.
func act(role string) error {
	verb, socket, _ := strings.Cut(role, " ")
	switch verb {
	case "listen":
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		defer l.Close()
	case "become-root": // as sudo does, once it is started
		if err := syscall.Setresuid(0, 0, 0); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// stage is a folder of root's with a program under the name of an engine that no other process has.
type stage struct {
	*testing.T
	name     string
	dir      string // with the socket: only root can make files there
	programs string
	socket   string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start programs as other users")
	}
	folder := func(parent string) string {
		dir, err := os.MkdirTemp(parent, "sm-process-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	s := &stage{T: t, name: "e-" + strings.ToLower(rand.Text()[:10]), dir: folder("/run"), programs: folder("")}
	s.socket = filepath.Join(s.dir, "engine.sock")
	return s
}

// program copies the test binary, or another program, to a folder under the engine's name.
func (s *stage) program(folder, from string, mode uint32, uid int) string {
	s.Helper()
	if from == "" {
		from = "/proc/self/exe"
	}
	data, err := os.ReadFile(from)
	if err != nil {
		s.Fatal(err)
	}
	name := filepath.Join(s.programs, folder, s.name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	// The order matters: a change of owner takes the setuid bit away.
	if err := errors.Join(os.WriteFile(name, data, 0o755), os.Chown(name, uid, 0), syscall.Chmod(name, mode)); err != nil {
		s.Fatal(err)
	}
	return name
}

// startSetuid starts a setuid program of root's as uid 12345.
func (s *stage) startSetuid(from, role string, args ...string) int {
	s.Helper()
	return s.start(s.program("home", from, 0o4755, 0), role, 12345, args...)
}

// start starts a program of this test's own and waits until it is in its role.
func (s *stage) start(program, role string, uid int, args ...string) int {
	s.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), actEnv+"="+role)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if role != "" {
		line, err := bufio.NewReader(out).ReadString('\n')
		if line != "ready\n" {
			s.Fatalf("%s says %q: %v", cmd, line, err)
		}
	}
	return cmd.Process.Pid
}

func (s *stage) query() Query {
	return Query{Name: s.name, Units: []string{"engine.service"}, Socket: s.socket, SocketUnits: []string{"engine.socket"}}
}

// mainPID is a service manager with one unit.
type mainPID int

func (m mainPID) MainPID(_ context.Context, unit string) (int, error) {
	if unit != "engine.service" {
		return 0, errors.New("no such unit")
	}
	return int(m), nil
}

func (mainPID) Active(context.Context, string) (bool, error) { return false, nil }

// listening is a service manager that listens at the engine's socket in its place.
type listening struct{ mainPID }

func (listening) Active(_ context.Context, unit string) (bool, error) {
	return unit == "engine.socket", nil
}

func (s *stage) find(m Manager) *Process {
	return Finder{Manager: m}.Find(s.Context(), s.query())
}

func TestTheEngineIsFoundByItsUnitOrByItsSocket(t *testing.T) {
	s := newStage(t)
	pid := s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0, "--config", "/etc/engine.toml")
	for name, m := range map[string]Manager{"unit": mainPID(pid), "socket": nil, "unit of another process": mainPID(1)} {
		p := s.find(m)
		if p == nil || p.PID != pid || Flag(p.Args, "--config") != "/etc/engine.toml" || p.Program != filepath.Join(s.programs, "bin", s.name) || p.Started.IsZero() {
			t.Errorf("by %s: %+v", name, p)
		}
	}
}

// With docker.socket a connection starts a Docker that was stopped.
func TestASocketOfTheServiceManagersIsNotConnectedTo(t *testing.T) {
	s := newStage(t)
	pid := s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0)
	if p := s.find(listening{mainPID(1)}); p != nil {
		t.Errorf("a process that is not the unit's main process was believed by the manager's socket: %+v", p)
	}
	if p := s.find(listening{mainPID(pid)}); p == nil || p.PID != pid {
		t.Errorf("the unit's main process was not believed: %+v", p)
	}
}

func TestAnEngineThatNothingVouchesForIsNotBelieved(t *testing.T) {
	s := newStage(t)
	s.start(s.program("bin", "", 0o755, 0), "wait", 0, "--config", "/etc/engine.toml")
	if p := s.find(mainPID(0)); p != nil {
		t.Errorf("found %+v", p)
	}
}

// A user leaves a program behind that bears the engine's name and has arguments of the user's
// choice: see docs/design/host-configuration.md.
func TestAUsersProcessIsNeverTheEngine(t *testing.T) {
	for name, fake := range map[string]func(s *stage) int{
		"plain": func(s *stage) int {
			return s.start(s.program("home", "", 0o755, 12345), "wait", 12345, "--config", "/tmp/evil.toml")
		},
		"setuid sleep": func(s *stage) int {
			return s.startSetuid("/bin/sleep", "", "600")
		},
		"setuid su": func(s *stage) int {
			return s.startSetuid("/bin/su", "", "--command", "true")
		},
		"setuid program that becomes root whole": func(s *stage) int {
			return s.startSetuid("", "become-root", "--config", "/tmp/evil.toml")
		},
		"root's, from a file of the user's": func(s *stage) int {
			return s.start(s.program("home", "", 0o755, 12345), "wait", 0, "--config", "/tmp/evil.toml")
		},
		"root's, from a file that all may write": func(s *stage) int {
			return s.start(s.program("home", "", 0o777, 0), "wait", 0, "--config", "/tmp/evil.toml")
		},
	} {
		for _, order := range []string{"before the engine", "after the engine", "without the engine"} {
			t.Run(name+" "+order, func(t *testing.T) {
				s := newStage(t)
				real := s.program("bin", "", 0o755, 0)
				engine := 0
				if order == "after the engine" {
					engine = s.start(real, "listen "+s.socket, 0)
				}
				pid := fake(s)
				if order == "before the engine" {
					engine = s.start(real, "listen "+s.socket, 0)
				}
				// Even a service manager that names the process is not enough for these.
				for _, m := range []Manager{nil, mainPID(engine), mainPID(0)} {
					p := s.find(m)
					if engine == 0 && p != nil || engine != 0 && (p == nil || p.PID != engine) {
						t.Errorf("with %v: found %+v, the engine is %d and the fake %d", m, p, engine, pid)
					}
				}
				if p := s.find(mainPID(pid)); p != nil && p.PID == pid {
					t.Errorf("believed %+v", p)
				}
			})
		}
	}
}

func TestASocketVouchesOnlyIfRootAloneCanHaveMadeIt(t *testing.T) {
	for name, spoil := range map[string]func(s *stage) error{
		"socket of a user":      func(s *stage) error { return os.Chown(s.socket, 12345, 0) },
		"folder of a user":      func(s *stage) error { return os.Chown(s.dir, 12345, 0) },
		"folder that all write": func(s *stage) error { return os.Chmod(s.dir, 0o1777) },
		"folder of a group": func(s *stage) error {
			return errors.Join(os.Chown(s.dir, 0, 12345), os.Chmod(s.dir, 0o775))
		},
		"folder of root's group": func(s *stage) error { return os.Chmod(s.dir, 0o770) },
		"a link in a user's place": func(s *stage) error {
			return errors.Join(os.Rename(s.socket, s.socket+"2"), link(s.socket+"2", s.socket, 12345))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0)
			if s.find(nil) == nil {
				t.Fatal("not found")
			}
			if err := spoil(s); err != nil {
				t.Fatal(err)
			}
			p := s.find(nil)
			if name == "a link in a user's place" || name == "folder of root's group" {
				// The link is followed; what it leads to is root's all the same. buildkitd makes its folder
				// with mode 0770 and the group root.
				if p == nil {
					t.Error("not found")
				}
			} else if p != nil {
				t.Errorf("found %+v", p)
			}
		})
	}
}

func link(target, name string, uid int) error {
	return errors.Join(os.Symlink(target, name), os.Lchown(name, uid, uid))
}

// powerless runs do as root without capabilities, as which the watching service runs.
func powerless(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		err := unix.Capset(&head, &[]unix.CapUserData{{}, {}}[0])
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRootWithoutCapabilitiesFindsTheEngineAndNoFake(t *testing.T) {
	s := newStage(t)
	fake := s.startSetuid("", "become-root", "--config", "/tmp/evil.toml")
	engine := s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0, "--config", "/etc/engine.toml")
	for name, m := range map[string]Manager{"unit": mainPID(engine), "socket": mainPID(0)} {
		var p *Process
		var exe executable
		powerless(t, func() { p, exe = s.find(m), inspectExecutable(fake) })
		if p == nil || p.PID != engine || p.Program != "" {
			t.Errorf("by %s: %+v", name, p)
		}
		if exe.known {
			t.Errorf("the kernel tells root without CAP_SYS_PTRACE of %+v: this test and the code rest on the contrary", exe)
		}
	}
}

func TestAConnectionIsMadeForNoProcessOfAUsersSessionOrAContainer(t *testing.T) {
	s := newStage(t)
	pid := s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0)
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, asked := range map[string]struct{ uninspected, inspected bool }{
		"/":                            {true, true},
		"/system.slice/engine.service": {true, true},
		"/user.slice/user-1000.slice/session-1.scope":                         {false, true},
		"/system.slice/docker-" + id + ".scope":                               {false, false},
		"/docker/" + id:                                                       {false, false},
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": {false, false},
		"/machine.slice/libpod-" + id + ".scope/container":                    {false, false},
	} {
		c := candidate{pid: pid, cgroup: cgroup}
		if got := ownsSocket(t.Context(), s.socket, c, false); got != asked.uninspected {
			t.Errorf("in %s: %v", cgroup, got)
		}
		if got := ownsSocket(t.Context(), s.socket, c, true); got != asked.inspected {
			t.Errorf("in %s with an inspected executable: %v", cgroup, got)
		}
	}
}

func TestASignalReachesTheProcessThatWasFoundAndNoOther(t *testing.T) {
	s := newStage(t)
	s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0)
	p := s.find(nil)
	if p == nil {
		t.Fatal("not found")
	}
	if err := p.Signal(0); err != nil {
		t.Error(err)
	}
	another := *p
	another.PID = os.Getpid()
	if err := another.Signal(0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the signal reached another process: %v", err)
	}
}

func TestAcceptChoosesAmongEngines(t *testing.T) {
	s := newStage(t)
	s.start(s.program("bin", "", 0o755, 0), "listen "+s.socket, 0, "--version")
	q := s.query()
	q.Accept = func(p Process) bool { return !strings.Contains(strings.Join(p.Args, " "), "--version") }
	if p := (Finder{}).Find(t.Context(), q); p != nil {
		t.Errorf("found %+v", p)
	}
}

func TestUsersOfAName(t *testing.T) {
	s := newStage(t)
	s.start(s.program("bin", "", 0o755, 0), "wait", 12345)
	s.start(s.program("bin2", "", 0o755, 0), "wait", 12345)
	s.start(s.program("bin3", "", 0o755, 0), "wait", 0)
	if got := Users(s.name); len(got) != 1 || got[0] != 12345 {
		t.Errorf("got %v", got)
	}
}

func TestStatusOfAProcess(t *testing.T) {
	for name, test := range map[string]struct {
		status string
		ok     bool
		root   bool
	}{
		"root's":          {"Name:\tdockerd\nUid:\t0\t0\t0\t0\nNSpid:\t9\n", true, true},
		"no namespaces":   {"Name:\tdockerd\nUid:\t0\t0\t0\t0\n", true, true},
		"setuid":          {"Name:\tdockerd\nUid:\t1000\t0\t0\t0\nNSpid:\t9\n", true, false},
		"dropped":         {"Name:\tdockerd\nUid:\t0\t0\t1000\t0\n", true, false},
		"in a container":  {"Name:\tdockerd\nUid:\t0\t0\t0\t0\nNSpid:\t9\t1\n", false, false},
		"no uid":          {"Name:\tdockerd\n", false, false},
		"uid of no digit": {"Name:\tdockerd\nUid:\ta\t0\t0\t0\n", false, false},
		"nothing":         {"", false, false},
	} {
		if c, ok := parseStatus([]byte(test.status)); ok != test.ok || ok && c.isRoot() != test.root {
			t.Errorf("%s: %+v, %v", name, c, ok)
		}
	}
}

func TestUnitOfAProcess(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/docker.service\n":                                                      "docker.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service\n":            "",
		"0::/user.slice/user-0.slice/session-3.scope\n":                                          "",
		"12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/containerd.service\n0::/": "containerd.service",
		"0::/": "",
		"":     "",
	} {
		if _, unit := parseCgroup([]byte(text)); unit != want {
			t.Errorf("%q: %q", text, unit)
		}
	}
}

func TestFlagsInBothForms(t *testing.T) {
	args := []string{"dockerd", "-H", "unix:///a", "--host=unix:///b", "--config-file", "/x", "-H"}
	if got := Flags(args, "--host", "-H"); strings.Join(got, " ") != "unix:///a unix:///b" {
		t.Errorf("got %q", got)
	}
	if got := Flag(args, "--config-file"); got != "/x" {
		t.Errorf("got %q", got)
	}
	if got := Flag(args, "--pidfile"); got != "" {
		t.Errorf("got %q", got)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\tdockerd\nUid:\t0\t0\t0\t0\nNSpid:\t9\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		if c, ok := parseStatus(status); ok && (c.name == "" || strings.ContainsAny(c.name, " \n\t") || c.uids[0] < 0) {
			t.Errorf("%+v", c)
		}
	})
}
