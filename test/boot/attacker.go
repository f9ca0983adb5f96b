package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/test/process"
)

// Paths in the machine of what the attacker has and wants.
const (
	attackerMark = "/var/lib/loaded-by-root"    // made by the attacker's code if root runs it
	attackerFile = "/etc/nologin"               // keeps every user but root from logging in
	attackerDir  = "/etc/mallory.d"             // a folder that only root can make
	attackerSees = userHome + "/requests"       // one line for each request at a socket of theirs
	fakeImage    = "localhost/fake-engine:here" // an image whose programs have engines' names
)

// attackerConfig is what the attacker wants containerd's configuration to be: root imports a file
// of theirs, loads a library of theirs, and writes to a folder of their choice.
const attackerConfig = `version = 2
root = "` + userHome + `/root"
state = "` + userHome + `/state"
plugin_dir = "` + userHome + `/plugins"
imports = ["` + userHome + `/conf.d/*.toml"]

[grpc]
  address = "` + userHome + `/containerd.sock"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "` + attackerDir + `"
`

// An attacker is an ordinary user of a machine, who leaves processes behind that have an engine's
// name and root's effective user id: su under another name, waiting for a password.
type attacker struct {
	m       *machine
	inotify *os.File
	folders map[int32]string // what inotify calls them
}

// newAttacker makes the user and their files in a machine that runs.
func newAttacker(m *machine) *attacker {
	t := m.t
	t.Helper()
	m.addUser()
	m.write(userHome+"/config.toml", attackerConfig, 0o644)
	m.write(userHome+"/conf.d/more.toml", attackerConfig, 0o644)
	m.write(userHome+"/daemon.json", "{\"registry-mirrors\": [\"https://mirror.example\"]}\n", 0o644)
	m.write(userHome+"/plugins/plugin-linux-amd64.so", plugin(t), 0o755)
	m.run(fmt.Sprintf("ln -s /usr/bin/su %[1]s/containerd && ln -s /usr/bin/su %[1]s/dockerd && mkfifo %[1]s/password && chown -R %[2]s: %[1]s && chmod 0755 %[1]s", userHome, userName))
	a := &attacker{m: m, folders: make(map[int32]string)}
	a.m.as("%[1]s listen %[2]s %[3]s/containerd.sock & %[1]s listen %[2]s %[3]s/docker.sock &", localuser, attackerSees, userHome)
	m.eventually("the attacker listens", func() error {
		_, err := m.try(fmt.Sprintf("test -S %[1]s/containerd.sock && test -S %[1]s/docker.sock", userHome))
		return err
	})
	a.watch()
	return a
}

// fakes starts the attacker's engines. su takes the user's name and passes the rest on to a shell
// that it never starts.
func (a *attacker) fakes() {
	a.m.t.Helper()
	a.m.as(`cd %[1]s
exec 3<>password
for fake in \
	"containerd -- %[2]s --config %[1]s/config.toml --address %[1]s/containerd.sock" \
	"containerd -- %[2]s -c=%[1]s/config.toml" \
	"dockerd -- %[2]s --config-file %[3]s -H unix://%[1]s/docker.sock" \
	"dockerd -- %[2]s --config-file=%[1]s/daemon.json --data-root %[1]s/data"
do
	setsid --fork ./$fake <&3
done`, userHome, userName, attackerFile)
	a.m.eventually("the fake engines run", func() error {
		if n := len(a.alive()); n != 4 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	a.forget()
}

// alive lists the ids of the fake engines: su under an engine's name, with root's effective
// user id, and with init for a parent.
func (a *attacker) alive() []string {
	a.m.t.Helper()
	out := a.m.run(`uid=$(id -u ` + userName + `)
for p in /proc/[0-9]*; do
	[ "$(readlink $p/exe)" = /usr/bin/su ] || continue
	awk -v uid=$uid '
		$1 == "Name:" { name = $2 }
		$1 == "PPid:" { parent = $2 }
		$1 == "Uid:" { real = $2; effective = $3 }
		END { exit !((name == "containerd" || name == "dockerd") && parent == 1 && real == uid && effective == 0) }
	' $p/status && echo ${p#/proc/}
done; true`)
	return strings.Fields(out)
}

// watch begins to record what any process does with the attacker's files.
func (a *attacker) watch() {
	t := a.m.t
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	a.inotify = os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { _ = a.inotify.Close() })
	for _, folder := range []string{"", "/conf.d", "/plugins"} {
		// Not IN_CLOSE_NOWRITE and the like: an open is before each of them.
		wd, err := unix.InotifyAddWatch(fd, a.m.path(userHome+folder), unix.IN_OPEN|unix.IN_ACCESS|unix.IN_MODIFY|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_ATTRIB)
		if err != nil {
			t.Fatal(err)
		}
		a.folders[int32(wd)] = userHome + folder
	}
}

// opened returns the attacker's files that were opened since it was last called, each once.
func (a *attacker) opened() []string {
	a.m.t.Helper()
	var found []string
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(int(a.inotify.Fd()), buffer)
		if err == unix.EAGAIN {
			slices.Sort(found)
			return slices.Compact(found)
		}
		if err != nil {
			a.m.t.Fatal(err)
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(rest))
			length := int(binary.NativeEndian.Uint32(rest[12:]))
			name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length], "\x00"))
			found = append(found, filepath.Join(a.folders[wd], name))
			rest = rest[unix.SizeofInotifyEvent+length:]
		}
	}
}

// forget drops what the attacker did with their own files.
func (a *attacker) forget() { _ = a.opened() }

// unheard fails the test if root did what the attacker wants. what says what was done before.
func (a *attacker) unheard(what string, etc tree) {
	t := a.m.t
	t.Helper()
	if alive := a.alive(); len(alive) != 4 {
		t.Errorf("%s: root ended fake engines; of 4 there are left:\n%s", what, a.m.run("ps -eo pid,ppid,user,ruser,comm,args | grep "+userName))
		for _, pid := range alive {
			a.m.run("kill -KILL " + pid)
		}
		defer a.fakes()
	}
	if used := a.opened(); len(used) > 0 {
		t.Errorf("%s: root used the attacker's files %q", what, used)
	}
	for _, path := range []string{attackerMark, attackerFile, attackerDir, attackerSees} {
		if text, err := a.m.try("ls -ld " + path + "; cat " + path); !strings.Contains(text, "No such file") {
			t.Errorf("%s: there is %s: %s, %v", what, path, text, err)
		}
		// The next step must show what it does itself.
		a.m.run("rm -rf " + path)
	}
	for _, d := range a.m.tree("/etc").differences(etc, ownEtc...) {
		t.Errorf("%s: in /etc %s", what, d)
	}
	a.forget()
}

// ownEtc are what an installation of sidemirror and the engines change in /etc on their own account.
var ownEtc = []string{
	"/etc/docker", "/etc/containerd", "/etc/sidemirror", "/etc/systemd/system",
	"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow",
	"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
}

// names fails the test if a command that the administrator runs shows what the attacker chose.
func (a *attacker) silent(command string) {
	t := a.m.t
	t.Helper()
	out, _ := a.m.try(command) // plan exits with 2 if there are changes
	for _, word := range []string{userHome, attackerFile, attackerDir} {
		if strings.Contains(out, word) {
			t.Errorf("%s believes %s:\n%s", command, word, out)
		}
	}
}

// container runs a container as root in the host's process namespace, in which a program under
// dockerd's name names a file of its choice. An administrator who starts such a
// container does not mean it to be the host's engine.
func (a *attacker) container() {
	m := a.m
	m.t.Helper()
	m.run("mkdir /srv/image && cp " + localuser + " /srv/image/dockerd && cp " + localuser + " /srv/image/containerd && " +
		"tar --directory=/srv/image --create . | docker import - " + fakeImage)
	for name, flag := range map[string]string{"dockerd": "--config-file=" + attackerFile, "containerd": "--config=" + userHome + "/config.toml"} {
		m.run("docker run --detach --pid=host --network=none --volume=/etc:/host-etc " + fakeImage + " /" + name + " " + flag)
	}
	m.eventually("the container's engines run", func() error {
		if n := len(a.contained()); n != 2 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	a.forget()
}

// contained lists the ids of the engines in containers that share the host's process ids.
func (a *attacker) contained() []string {
	a.m.t.Helper()
	return strings.Fields(a.m.run(`for p in /proc/[0-9]*; do
	case $(tr '\0' ' ' <$p/cmdline) in
	"/dockerd --config-file=` + attackerFile + ` " | "/containerd --config=` + userHome + `/config.toml ") echo ${p#/proc/} ;;
	esac
done`))
}

// plugin builds the library that a program of root's must not load.
func plugin(t testing.TB) string {
	t.Helper()
	library := filepath.Join(t.TempDir(), "plugin.so")
	compiler := process.Path(t, "gcc")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", `-DMARKER="`+attackerMark+`"`, "-o", library, "testdata/plugin.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return content(t, library)
}
