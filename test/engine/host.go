package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/process"
)

// HostOptions say what a host is like.
type HostOptions struct {
	Generation Generation

	// Files are put into the tree over what the engines' packages bring, by their
	// paths: "/etc/docker/daemon.json".
	Files map[string]string

	// CA is the path of the PEM authorities that the host trusts, and the only ones.
	CA string

	// Program is put at /srv/NAME, for Run.
	Program string
}

// Host is a machine as far as its engines can tell: a root of its own, in which /etc,
// /var, /run and the process ids are its own and /usr is this machine's with the
// engines of one generation laid over it. They run as their packages run them, with
// no path or socket that is not the usual one. It shares this machine's network.
type Host struct {
	// Root is the host's tree, as this machine sees it; what is mounted in it is not
	// seen there.
	Root string

	pid        int // of its first process
	containerd *process.Daemon
	docker     *process.Daemon
}

// In the namespaces of unshare(1): the private root is built and moved to. All of it
// goes when its first process does.
const enter = `set -e
root=$1 engines=$2 program=$3
mount --bind "$root" "$root"
mount -t overlay overlay -o "ro,lowerdir=$engines/usr:/usr" "$root/usr"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
[ -z "$program" ] || mount --bind "$program" "$root/srv/${program##*/}"
cd "$root"
pivot_root . mnt
umount -l /mnt
echo the host is up
exec sleep infinity`

// StartHost makes a host and keeps it until the end of the test. Nothing runs on it yet.
func StartHost(t testing.TB, o HostOptions) *Host {
	t.Helper()
	NeedRoot(t)
	engines := o.Generation.Get(t)
	h := &Host{Root: memory(t, "host")}
	h.build(t, engines, o)
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
		"sh", "-c", enter, "sh", h.Root, engines, o.Program)
	process.Start(t, "host", cmd, func(output string) error {
		if !strings.Contains(output, "the host is up") {
			return errors.New("its root is not built")
		}
		return nil
	})
	// unshare has one child, which is the first process of the new namespace.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err == nil {
		h.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
	}
	if err != nil {
		t.Fatalf("finding the first process of a host: %v", err)
	}
	// unshare waits for it and hears no SIGTERM meanwhile.
	t.Cleanup(func() { _ = syscall.Kill(h.pid, syscall.SIGKILL) })
	return h
}

// build makes the host's tree.
func (h *Host) build(t testing.TB, engines string, o HostOptions) {
	t.Helper()
	var errs []error
	for _, name := range []string{"usr", "dev", "sys", "proc", "run", "mnt", "srv", "tmp", "root", "opt", "var/lib", "var/tmp", "etc/ssl/certs"} {
		errs = append(errs, os.MkdirAll(filepath.Join(h.Root, name), 0o755))
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		errs = append(errs, os.Symlink("usr/"+name, filepath.Join(h.Root, name)))
	}
	errs = append(errs, os.Symlink("/run", filepath.Join(h.Root, "var/run")),
		os.CopyFS(filepath.Join(h.Root, "etc"), os.DirFS(filepath.Join(engines, "etc"))))
	files := map[string]string{
		"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "/etc/group": "root:x:0:\ndocker:x:999:\n",
		"/etc/nsswitch.conf": "hosts: files\n", "/etc/resolv.conf": "", "/etc/ssl/certs/ca-certificates.crt": "",
		"/etc/hosts": "127.0.0.1 localhost\n",
	}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		errs = append(errs, err)
		files["/etc/ssl/certs/ca-certificates.crt"] = string(pem)
	}
	if o.Program != "" {
		files["/srv/"+filepath.Base(o.Program)] = ""
	}
	for path, content := range o.Files {
		files[path] = content
	}
	for path, content := range files {
		path = filepath.Join(h.Root, path)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("building a host's tree: %v", err)
	}
}

// Path is where this machine finds a file of the host's, also one below what is
// mounted in it, as long as the host runs.
func (h *Host) Path(name string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid, name) }

// inside is a command line that enters the host and runs what is added to it.
func (h *Host) inside(more ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(h.pid), "--mount", "--pid", "--root", "--wd"}, more...)
}

// Run runs a program on the host to its end and returns what it prints and its exit
// code; the error is for one that could not be run.
func (h *Host) Run(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	line := h.inside(append([]string{"--"}, args...)...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = []string{path, "HOME=/root"}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

// The shell stays outside the host's process ids and only its child is in them. The child then has
// no parent there, like a daemon. The shell passes SIGTERM on and waits.
const forward = `"$@" & child=$!; trap 'kill -TERM $child' TERM; wait $child; wait $child`

// Start runs a program on the host until the end of the test. It returns when ready, which
// gets the output so far, reports nil.
func (h *Host) Start(t testing.TB, ready func(output string) error, name string, args ...string) *process.Daemon {
	t.Helper()
	return h.start(t, ready, name, args...)
}

// start runs a daemon on the host until the end of the test, or until it is stopped.
func (h *Host) start(t testing.TB, ready func(output string) error, name string, args ...string) *process.Daemon {
	t.Helper()
	line := h.inside(append([]string{"--no-fork", "--", "sh", "-c", forward, "sh", name}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = []string{path, "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return process.Start(t, filepath.Base(name), cmd, ready)
}
