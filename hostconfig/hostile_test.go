package hostconfig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/certtest"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// bind mounts a file over itself, as container runtimes do with single files.
func bind(t *testing.T, name string, flags uintptr) {
	t.Helper()
	err := unix.Mount(name, name, "", unix.MS_BIND, "")
	if errors.Is(err, unix.EPERM) {
		t.Skip("only root may mount")
	}
	if err == nil && flags != 0 {
		err = unix.Mount("", name, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestAFileThatIsABindMountIsWrittenInPlace(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{\n  \"debug\": true\n}\n"})
	bind(t, h.path(dockerJSON), 0)
	before, was := h.snapshot(t), inode(t, h.path(dockerJSON))
	h.apply(t, dockerOnly())
	contains(t, h.get(t, dockerJSON), ourURL)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
	if inode(t, h.path(dockerJSON)) != was {
		t.Error("the file was replaced")
	}
}

func TestAReadOnlyFileSystemIsRefusedByThePlan(t *testing.T) {
	h := dockerHost(t, "28.5.2", map[string]string{dockerJSON: "{}", "/etc/containerd/": ""})
	bind(t, h.path(dockerFolder), unix.MS_RDONLY)
	before := h.snapshot(t)
	plan := h.plan(t, desired("docker.io"))
	contains(t, refusals(plan), hubHosts+": on a read-only file system\nhint: make it writable, or write this file into the host's image")
	if len(plan.Changes) != 1 || plan.Changes[0].Engine != engine.Containerd {
		t.Errorf("%+v", plan.Changes)
	}
	result, err := h.try(t, desired("docker.io"))
	if err == nil || len(result.Written) != 1 {
		t.Errorf("wrote %q, %v", result.Written, err)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

// The watching service sees / read-only, except for the engines' folders and the journal's.
func TestOnlyTheFoldersWrittenToNeedToBeWritable(t *testing.T) {
	h := dockerHost(t, "28.5.2", map[string]string{dockerJSON: "{}", "/var/lib/": ""})
	before := h.snapshot(t)
	h.apply(t, dockerOnly()) // which makes the journal's folder
	bind(t, h.Root, 0)
	for _, name := range []string{dockerFolder, journal.Folder} {
		bind(t, h.path(name), 0)
	}
	if err := unix.Mount("", h.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	h.apply(t, engine.Desired{Mirror: ourURL, Registries: []string{"docker.io", "r.example"}, Engines: []string{engine.Docker}})
	contains(t, h.get(t, dockerHosts+"/r.example/hosts.toml"), ourHost)
	h.revert(t)
	after := h.snapshot(t)
	delete(after, journal.Folder) // empty, for the service's next start
	sameTree(t, before, after)
	h.apply(t, dockerOnly())
}

// The record of such a write holds both contents, and must be readable again.
func TestAFileTooLargeForTheJournalIsNotWrittenInPlace(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{" + strings.Repeat(" ", 8<<20) + "}"})
	h.step = failing("rename", dockerJSON, unix.EBUSY)
	before := h.snapshot(t)
	if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), "too large to be written in place") {
		t.Errorf("error: %v", err)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

// Another run may have restored a file between plan and apply, which is what was wanted.
func TestAFileThatIsRestoredAlreadyIsNoError(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": "", rHosts: theirs})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example", "docker.io"))
	plan := h.plan(t, engine.Desired{Mirror: ourURL})
	h.revert(t)
	result, err := Apply(context.Background(), h, plan)
	if err != nil || len(result.Restored) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	sameTree(t, before, h.snapshot(t))
}

// powerless runs do as root without capabilities, which each thread has of its own.
func powerless(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root has capabilities to give up")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never given back: the thread ends with this function
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

// Confined like the watching service, sidemirror refuses files of other users with the reason, and
// changes and restores the rest.
func TestRootWithoutCapabilities(t *testing.T) {
	for name, test := range map[string]struct {
		uid, gid int
		mode     os.FileMode
		says     string // "" where it is no matter
	}{
		"root's":     {0, 0, 0o600, ""},
		"a group's":  {0, 34, 0o640, "/etc/docker/daemon.json: belongs to user 0 and group 34, to whom root without capabilities"},
		"a user's":   {12, 34, 0o644, "run sidemirror apply, or chown 0:0 it"},
		"unreadable": {12, 34, 0o600, "root without capabilities"},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}", "/etc/containerd/": ""})
			if err := errors.Join(os.Chown(h.path(dockerJSON), test.uid, test.gid), os.Chmod(h.path(dockerJSON), test.mode)); err != nil {
				t.Fatal(err)
			}
			before := h.snapshot(t)
			var err error
			powerless(t, func() { _, err = h.try(t, desired("docker.io")) })
			if (err != nil) != (test.says != "") {
				t.Errorf("error: %v", err)
			}
			contains(t, problem.Format("", err), test.says)
			after := h.snapshot(t)
			if test.says != "" && after[dockerJSON] != before[dockerJSON] {
				t.Errorf("it was %q, and is %q", before[dockerJSON], after[dockerJSON])
			}
			contains(t, h.get(t, containerdHosts+"/docker.io/hosts.toml"), ourHost)
			powerless(t, func() { _, err = Revert(context.Background(), h, ourURL) })
			if name != "unreadable" && err != nil {
				t.Error(err)
			}
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// What root with all capabilities wrote can only be restored by such a root, and is not lost by the
// other.
func TestRootWithoutCapabilitiesLosesNothing(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
	if err := os.Chown(h.path(dockerJSON), 12, 34); err != nil {
		t.Skip("only root may give a file away")
	}
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	after := h.snapshot(t)
	var err error
	powerless(t, func() { _, err = Revert(context.Background(), h, ourURL) })
	if err == nil || !strings.Contains(problem.Format("", err), "run sidemirror apply") {
		t.Errorf("error: %v", err)
	}
	sameTree(t, after, h.snapshot(t))
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestHugeFilesAreRefusedWhicheverTheyAre(t *testing.T) {
	for name, want := range map[string]engine.Desired{dockerJSON: dockerOnly(), hubHosts: dockerOnly(), containerdConfig: restarting(), rHosts: restarting()} {
		h := host(t, map[string]string{name: "", "/etc/docker/": "", "/etc/containerd/": ""})
		if err := os.Truncate(h.path(name), 64<<20); err != nil {
			t.Fatal(err)
		}
		contains(t, refusals(h.plan(t, want)), name+": larger than 16 MiB")
		if _, err := h.try(t, want); err == nil {
			t.Errorf("%s: no error", name)
		}
		if info, err := os.Stat(h.path(name)); err != nil || info.Size() != 64<<20 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A user who may write to a folder may exchange it for a link between the plan and its execution.
func TestAFolderSwappedForALinkIsNotFollowedOut(t *testing.T) {
	authority, _ := certtest.New(t)
	for _, folder := range []string{"/etc/docker", "/etc/containerd", "/etc/containerd/certs.d", "/etc/containerd/certs.d/r.example", "/var/lib"} {
		for name, target := range map[string]string{"relative": "../../../../../../outside", "absolute": "OUTSIDE", "inside": "/srv"} {
			t.Run(folder+" "+name, func(t *testing.T) {
				h := host(t, map[string]string{
					"/outside/keep": "x", "/root/srv/keep": "x", "/root/var/lib/": "",
					"/root" + dockerJSON: "{}", "/root" + rFolder + "/ca.crt": authority,
				})
				outer := *h
				h.Root = filepath.Join(h.Root, "root")
				want := desired("r.example", "docker.io")
				plan := h.plan(t, want)
				if err := os.Rename(h.path(folder), h.path("/srv/moved")); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(strings.Replace(target, "OUTSIDE", outer.path("/outside"), 1), h.path(folder)); err != nil {
					t.Fatal(err)
				}
				_, failed := Apply(context.Background(), h, plan)
				if failed == nil && name != "inside" {
					t.Error("no error")
				}
				if got, err := os.ReadDir(outer.path("/outside")); err != nil || len(got) != 1 {
					t.Errorf("outside the tree: %v, %v", got, err)
				}
				// What was written in spite of all is given back.
				if name == "inside" {
					h.revert(t)
					h.missing(t, "/srv/daemon.json")
					h.missing(t, "/srv/hosts.toml")
				}
			})
		}
	}
}

func TestNamesWithNewlines(t *testing.T) {
	authority, _ := certtest.New(t)
	const folder = "/etc/containerd/certs.d/a\n[host.\"x\"]"
	h := host(t, map[string]string{
		rFolder + "/a\"\n[host.'evil']\n.crt":     authority,
		folder + "/hosts.toml":                    splice.FileMark + "\n" + ourHost, // as if it were sidemirror's
		"/etc/containerd/certs.d/b\nc/hosts.toml": splice.FileMark + "\n[broken\n",
	})
	want := containerdOnly("r.example", "evil\nname", "x\n../..")
	plan := h.plan(t, want)
	contains(t, refusals(plan), `"evil\nname" is not the name of a registry`)
	for _, err := range plan.Refused {
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of two lines: %q", err)
		}
	}
	if _, err := h.try(t, want); err == nil {
		t.Error("no error")
	}
	file, err := splice.ReadHosts(rHosts, []byte(h.get(t, rHosts)), splice.Version{})
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Hosts) != 1 || file.Hosts[0].Name != ourURL {
		t.Errorf("the name of a file became a host: %+v", file.Hosts)
	}
	h.missing(t, folder+"/hosts.toml")
}
