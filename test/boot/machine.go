package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
)

// patience bounds what a machine is waited for: it boots in a second, and an
// installation takes a few, but others share the cores.
const patience = 90 * time.Second

// mounted is where a machine's root is, in the mount namespace of its holder.
const mounted = "/run/machine"

// A machine is a whole Debian with disks and a network of its own. Switched off it
// can be looked at and changed; on, systemd runs in it.
//
// Everything is held by one process that does nothing, the first of namespaces of its
// own. It is ended with the test process, whatever becomes of that, and with it go all
// processes, the mounts and the network.
type machine struct {
	t      testing.TB // the test that is running
	owner  testing.TB // the test that the machine lives as long as
	suite  suite
	dir    string // its disks: what was written to the root, Docker's and containerd's folders
	holder int    // process id
	leader int    // process id of its systemd, 0 when off
	boots  int
	group  *os.File // its control group
	binds  []string // folders of this host that it has, as systemd-nspawn's --bind
}

// hold is run as the holder, in its namespaces: $1 is the machine's name, $2 the
// pristine root, $3 the folder of its disks. The engines store their content next to
// the overlay, because an overlay cannot lie on another. dockerd wants to forward packets,
// and inside the machine that setting is read-only.
const hold = `set -e
mount --make-rprivate /
mount -t proc proc /proc
echo 1 >/proc/sys/net/ipv4/ip_forward
umount -R /sys/fs/cgroup 2>/dev/null || umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$1"
mount -t tmpfs tmpfs /run
mkdir /run/machine
mount -t overlay overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" /run/machine
chroot /run/machine ip link set lo up
trap 'exit 0' TERM
echo held
while :; do sleep 1000 & wait $!; done`

// newMachine makes a machine that is off. It is destroyed with the test.
func newMachine(t testing.TB, s suite) *machine {
	t.Helper()
	engine.NeedRoot(t)
	pristine := s.root(t)
	dir, err := os.MkdirTemp("", "sidemirror-boot-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, owner: t, suite: s, dir: dir}
	// Registered before the holder's end, and so done after it: nothing is mounted then.
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the machine left something behind: %v", err)
		}
	})
	for _, name := range []string{"upper", "work", "docker", "containerd"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c", hold, "sh", m.name(), pristine, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	process.Start(t, "holder", cmd, func(output string) error {
		if !strings.HasPrefix(output, "held\n") {
			return errors.New("it has not mounted the machine's root")
		}
		return nil
	})
	m.holder = cmd.Process.Pid
	t.Cleanup(m.destroy)
	if m.group, err = os.Open(m.cgroup()); err != nil {
		t.Fatal(err)
	}
	return m
}

// name is unique on this machine: nspawn's for it, and its control group's.
func (m *machine) name() string { return filepath.Base(m.dir) }

// path is where the test finds a file of the machine's root, on or off. What is
// mounted while it is on (/run, /var/lib/docker) is not there.
func (m *machine) path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s%s", m.holder, mounted, file)
}

// cgroup is a control group of the machine's, which all of its processes are in.
func (m *machine) cgroup(elem ...string) string {
	return fmt.Sprintf("/proc/%d/root/sys/fs/cgroup/%s/%s", m.holder, m.name(), filepath.Join(elem...))
}

// boot switches the machine on and returns when systemd has nothing left to do.
func (m *machine) boot() {
	m.t.Helper()
	began := time.Now()
	m.boots++
	nspawn := []string{
		"systemd-nspawn", "--directory=" + mounted, "--boot", "--machine=" + m.name(),
		"--network-namespace-path=/proc/1/ns/net", "--register=no", "--keep-unit",
		"--capability=all", "--system-call-filter='add_key keyctl bpf'", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--bind=" + filepath.Join(m.dir, "docker") + ":/var/lib/docker",
		"--bind=" + filepath.Join(m.dir, "containerd") + ":/var/lib/containerd",
	}
	for _, bind := range m.binds {
		nspawn = append(nspawn, "--bind="+bind)
	}
	// Without a terminal nspawn is silent.
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(m.holder), "--mount", "--net", "--pid",
		"script", "--quiet", "--flush", "--return", "--command", strings.Join(nspawn, " "), "/dev/null")
	cmd.SysProcAttr = m.inGroup()
	process.Start(m.owner, fmt.Sprintf("console-%d", m.boots), cmd, func(string) error {
		var err error
		m.leader, err = firstPID(m.cgroup("payload", "init.scope", "cgroup.procs"))
		return err
	})
	// Before the console is asked to end: it would wait for the machine.
	m.owner.Cleanup(m.halt)
	m.eventually("systemd listens", func() error {
		_, err := m.try("systemctl show --property=Version")
		return err
	})
	// It exits with 1 where a unit has failed, which is for the tests to judge.
	state, _ := m.try("systemctl is-system-running --wait")
	m.t.Logf("booted in %.1f s: %s", time.Since(began).Seconds(), strings.TrimSpace(state))
}

// poweroff switches the machine off, as one does by its button.
func (m *machine) poweroff() {
	m.t.Helper()
	m.run("systemctl poweroff")
	m.eventually("the machine is off", func() error {
		events, err := os.ReadFile(m.cgroup("cgroup.events"))
		if err == nil && !strings.Contains(string(events), "populated 0\n") {
			err = errors.New("there are processes in it")
		}
		return err
	})
	m.leader = 0
}

func (m *machine) reboot() {
	m.t.Helper()
	m.poweroff()
	m.boot()
}

// halt ends whatever runs in the machine, at once.
func (m *machine) halt() {
	if m.owner.Failed() && m.leader != 0 {
		journal, _ := m.try("journalctl --no-pager --lines=200 --output=short-precise _COMM=systemd + _COMM=sidemirror + _COMM=dockerd")
		m.t.Logf("the machine's journal:\n%s", journal)
	}
	if err := os.WriteFile(m.cgroup("cgroup.kill"), []byte("1"), 0); err != nil {
		m.t.Errorf("ending the machine: %v", err)
	}
}

// destroy removes what halt has left. The holder is ended by who started it, and
// with it the mounts go.
func (m *machine) destroy() {
	m.halt()
	// A group can be removed when its last process is reaped.
	m.eventually("the control group is gone", func() error { return removeGroups(m.cgroup()) })
	if m.group != nil {
		_ = m.group.Close()
	}
}

// step runs a part of the machine's test as a test of its own.
func (m *machine) step(name string, part func(t testing.TB)) {
	owner, whole := m.owner.(*testing.T)
	if !whole {
		m.owner.Fatal("only a test has steps")
	}
	owner.Run(name, func(t *testing.T) {
		m.t = t
		defer func() { m.t = owner }()
		part(t)
	})
}

// removeGroups removes a control group and those in it.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroups(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, syscall.Rmdir(dir))
}

// inGroup makes a command start in the machine's control group.
func (m *machine) inGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(m.group.Fd())}
}

// rootSession is the control group of a login session of root's.
const rootSession = "user.slice/user-0.slice/session-boot.scope"

// openGroup makes a control group of the machine, if it runs, and opens it. If it is off, that is the
// group that all of it is in.
func (m *machine) openGroup(path string) *os.File {
	m.t.Helper()
	dir := m.cgroup()
	if m.leader != 0 {
		dir = m.cgroup("payload", path)
	}
	err := os.MkdirAll(dir, 0o755)
	if err != nil {
		m.t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return f
}

// portsFrom sets the first port that every user may open, which root's setting inside the machine
// cannot.
func (m *machine) portsFrom(port int) {
	m.t.Helper()
	out, err := exec.Command("nsenter", "--target", strconv.Itoa(m.holder), "--mount", "--net", "--pid",
		"sh", "-c", fmt.Sprintf("echo %d >/proc/sys/net/ipv4/ip_unprivileged_port_start", port)).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

// firstPID reads the first process id in a file.
func firstPID(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strconv.Atoi(string(line))
}

// eventually waits until done returns nil, and returns how long that took.
func (m *machine) eventually(what string, done func() error) time.Duration {
	m.t.Helper()
	began := time.Now()
	for {
		err := done()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > patience {
			m.t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shell makes the command that runs a shell script in the machine: when it is on
// as root's login would, when it is off in a chroot. The caller closes the group, which is that of
// the command, afterwards.
func (m *machine) shell(ctx context.Context, script string) (cmd *exec.Cmd, group io.Closer) {
	return m.shellIn(ctx, rootSession, script)
}

// shellIn is shell in another control group, such as that of a unit.
func (m *machine) shellIn(ctx context.Context, path, script string) (cmd *exec.Cmd, group io.Closer) {
	m.t.Helper()
	args := []string{"--target", strconv.Itoa(m.holder), "--mount", "--net", "--pid", "chroot", mounted}
	if m.leader != 0 {
		args = []string{
			"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		}
	}
	args = append(args, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", script)
	cmd = exec.CommandContext(ctx, "nsenter", args...)
	cmd.WaitDelay = time.Second
	f := m.openGroup(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	return cmd, f
}

// try runs a shell script in the machine and returns what it prints on both
// streams; the error holds that too.
func (m *machine) try(script string) (string, error) {
	return m.tryWith("", script)
}

// tryWith is try with something on the script's standard input.
func (m *machine) tryWith(input, script string) (string, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd, group := m.shell(ctx, script)
	defer group.Close()
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return string(out), err
}

// run is try for what may not fail.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager --lines=30 --output=short-precise")
		m.t.Fatalf("%v\nthe last lines of the journal:\n%s", err, journal)
	}
	return out
}

// write puts a file into the machine's root.
func (m *machine) write(file, content string, mode os.FileMode) {
	m.t.Helper()
	host := m.path(file)
	err := os.MkdirAll(filepath.Dir(host), 0o755)
	if err == nil {
		err = os.WriteFile(host, []byte(content), mode)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
