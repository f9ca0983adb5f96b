package hostfs

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// tree opens a host made from files by their paths; a path with a slash at its end is a folder.
func tree(t *testing.T, files map[string]string) *Host {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(files[name]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// running makes h follow the rules of the running host.
func running(t *testing.T, h *Host) *Host {
	t.Helper()
	needRoot(t)
	h.running, h.owners, h.groups = true, []uint32{0}, nil
	return h
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may give files to other users, and mount")
	}
}

func (h *Host) path(name string) string { return filepath.Join(h.dir, name) }

// acl is a POSIX ACL (acl(5)) that lets user 12 have the permissions perm.
func acl(perm, mask uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, ^uint32(0)}, {0x02, perm, 12}, {0x04, 4, ^uint32(0)}, {0x10, mask, ^uint32(0)}, {0x20, 4, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func TestOnlyWhatRootAloneCanChangeIsTrusted(t *testing.T) {
	const file = "/a/b/file"
	for name, test := range map[string]struct {
		spoil func(h *Host) error
		says  string // "" if it stays safe
		hint  string
	}{
		"as it should be":         {func(*Host) error { return nil }, "", ""},
		"owner of a folder":       {func(h *Host) error { return os.Chown(h.path("/a"), 12, 0) }, "/a belongs to user 12 instead of root", "chown root:root /a"},
		"owner of the file":       {func(h *Host) error { return os.Chown(h.path(file), 12, 0) }, "/a/b/file belongs to user 12", "chown root:root /a/b/file"},
		"owner of the tree":       {func(h *Host) error { return os.Chown(h.dir, 12, 0) }, "/ belongs to user 12", ""},
		"group of a folder":       {func(h *Host) error { return os.Chmod(h.path("/a/b"), 0o775) }, "other users than root may write to /a/b (mode 0775)", "chmod go-w /a/b"},
		"group of the file":       {func(h *Host) error { return os.Chmod(h.path(file), 0o664) }, "/a/b/file (mode 0664)", ""},
		"group that only reads":   {func(h *Host) error { return os.Chown(h.path(file), 0, 12) }, "", ""},
		"all users, folder":       {func(h *Host) error { return os.Chmod(h.path("/a"), 0o757) }, "/a (mode 0757)", ""},
		"all users, file":         {func(h *Host) error { return os.Chmod(h.path(file), 0o646) }, "/a/b/file (mode 0646)", ""},
		"sticky folder, as /tmp":  {func(h *Host) error { return os.Chmod(h.path("/a"), 0o777|fs.ModeSticky) }, "every user may create files in /a (mode 1777)", "move it to a folder"},
		"ACL that lets write":     {func(h *Host) error { return unix.Setxattr(h.path(file), "system.posix_acl_access", acl(6, 6), 0) }, "/a/b/file (mode 0664)", ""},
		"ACL that the mask stops": {func(h *Host) error { return unix.Setxattr(h.path(file), "system.posix_acl_access", acl(6, 4), 0) }, "", ""},
		"link of root's into another user's folder": {func(h *Host) error {
			return errors.Join(os.Rename(h.path("/a"), h.path("/home")), os.Chown(h.path("/home"), 12, 12), os.Symlink("home", h.path("/a")))
		}, "/home belongs to user 12", "chown root:root /home"},
	} {
		t.Run(name, func(t *testing.T) {
			h := running(t, tree(t, map[string]string{file: "text"}))
			if err := test.spoil(h); errors.Is(err, unix.ENOTSUP) {
				t.Skip("this file system has no ACLs")
			} else if err != nil {
				t.Fatal(err)
			}
			got, err := h.Read(file)
			if err != nil || string(got.Data) != "text" {
				t.Fatalf("read %q, %v", got.Data, err)
			}
			trusted, readErr := h.ReadTrusted(file)
			for what, err := range map[string]error{"Unsafe": got.Unsafe, "Trusted": h.Trusted(file), "ReadTrusted": readErr} {
				if test.says == "" {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				if err == nil || !strings.HasPrefix(err.Error(), file+": ") || !strings.Contains(err.Error(), test.says) || !strings.Contains(problem.Hint(err), test.hint) {
					t.Errorf("%s: %v, hint %q", what, err, problem.Hint(err))
				}
			}
			if test.says != "" && trusted.Data != nil {
				t.Errorf("refused, and yet %q", trusted.Data)
			}
		})
	}
}

// A missing file is as safe as the folders that it would be in.
func TestMissingFilesAreTrustedAsFarAsTheirFolders(t *testing.T) {
	h := running(t, tree(t, map[string]string{"/a/": ""}))
	for _, name := range []string{"/a/none", "/a/none/of/it", "/none"} {
		if f, err := h.ReadTrusted(name); err != nil || f.Exists() {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if err := os.Chmod(h.path("/a"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/a/none", "/a/none/of/it"} {
		if err := h.Trusted(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A link decides which file root reads and writes, so only root's links count.
func TestLinksThatAnotherUserCouldMakeAreNotFollowed(t *testing.T) {
	for name, spoil := range map[string]func(h *Host) error{
		"link of another user":           func(h *Host) error { return os.Lchown(h.path("/a/link"), 12, 12) },
		"in a folder of another user":    func(h *Host) error { return os.Chown(h.path("/a"), 12, 12) },
		"below a folder of another user": func(h *Host) error { return os.Chown(h.dir, 12, 12) },
		"in a folder of all users":       func(h *Host) error { return os.Chmod(h.path("/a"), 0o777|fs.ModeSticky) },
	} {
		t.Run(name, func(t *testing.T) {
			h := running(t, tree(t, map[string]string{"/a/": "", "/etc/secret": "secret", "/etc/folder/secret": "secret"}))
			for link, target := range map[string]string{"/a/link": "/etc/secret", "/a/relative": "../etc/secret", "/a/folder": "/etc/folder"} {
				if err := os.Symlink(target, h.path(link)); err != nil {
					t.Fatal(err)
				}
				if got, err := h.Read(link); link != "/a/folder" && (err != nil || string(got.Data) != "secret" || got.Real != "/etc/secret") {
					t.Fatalf("root's own link: %+v, %v", got, err)
				}
			}
			if err := errors.Join(spoil(h), os.Lchown(h.path("/a/relative"), 12, 12), os.Lchown(h.path("/a/folder"), 12, 12)); err != nil {
				t.Fatal(err)
			}
			for _, link := range []string{"/a/link", "/a/relative", "/a/folder/secret"} {
				got, err := h.Read(link)
				if err == nil || got.Data != nil || !strings.Contains(err.Error(), "is not followed") {
					t.Errorf("%s: %q, %v", link, got.Data, err)
				}
				if h.IsFile(link) || h.Peek(link) != nil {
					t.Errorf("%s: is a file all the same", link)
				}
				if _, err := h.Open(link); err == nil {
					t.Errorf("%s: opened", link)
				}
			}
			if list, err := h.Names("/a/folder"); err == nil {
				t.Errorf("listed %v", list)
			}
		})
	}
}

// Trees other than the running host's may belong to the user who builds an image.
func TestATreeBelongsToItsOwner(t *testing.T) {
	needRoot(t)
	h := tree(t, map[string]string{"/a/file": "text", "/b/": ""})
	err := filepath.WalkDir(h.dir, func(name string, _ fs.DirEntry, _ error) error { return os.Chown(name, 12, 34) })
	if err := errors.Join(err, os.Chmod(h.path("/a"), 0o775), os.Symlink("../a/file", h.path("/b/link")), os.Lchown(h.path("/b/link"), 12, 34)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if f, err := again.ReadTrusted("/b/link"); err != nil || string(f.Data) != "text" {
		t.Errorf("%q, %v", f.Data, err)
	}
	if err := os.Chown(h.path("/a"), 56, 34); err != nil {
		t.Fatal(err)
	}
	if _, err := again.ReadTrusted("/b/link"); err == nil {
		t.Error("a folder of a third user is trusted")
	}
	if again.running {
		t.Error("it passes for the running host")
	}
}

func TestTheRunningHostIsKnownByItsRootFolder(t *testing.T) {
	for _, name := range []string{"/", "/.", "/proc/self/root", "/etc/.."} {
		h, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if !h.running || !slices.Equal(h.owners, []uint32{0}) {
			t.Errorf("%s: running %v, owners %v", name, h.running, h.owners)
		}
	}
}

// Another user exchanges a folder of theirs for a link as fast as possible.
func TestAFolderThatIsExchangedMeanwhileNeverLeadsElsewhere(t *testing.T) {
	h := running(t, tree(t, map[string]string{"/home/dir/file": "theirs", "/etc/file": "secret"}))
	if err := errors.Join(os.Symlink("/etc", h.path("/home/link")), os.Symlink("../etc", h.path("/home/link2")),
		os.Lchown(h.path("/home/link"), 12, 12), os.Chown(h.path("/home"), 12, 12)); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = unix.Renameat2(unix.AT_FDCWD, h.path("/home/dir"), unix.AT_FDCWD, h.path("/home/link"), unix.RENAME_EXCHANGE)
		}
	}()
	read := 0
	for range 5000 {
		f, err := h.Read("/home/dir/file")
		if err == nil && f.Exists() {
			read++
		}
		if string(f.Data) == "secret" || f.Exists() && f.Unsafe == nil {
			t.Fatalf("read %q, unsafe: %v", f.Data, f.Unsafe)
		}
		if _, err := h.ReadTrusted("/home/dir/file"); err == nil {
			t.Fatal("trusted")
		}
		if err := h.Write("/home/dir/new", nil, []byte("x"), Attrs{Mode: 0o644}); err == nil {
			_ = h.Remove("/home/dir/new", []byte("x"))
		}
		if _, err := os.Lstat(h.path("/etc/new")); err == nil {
			t.Fatal("written through the link")
		}
	}
	close(stop)
	<-stopped
	if read == 0 {
		t.Error("the folder was never there")
	}
}

func TestNothingIsWrittenThroughALinkInAResolvedPath(t *testing.T) {
	h := tree(t, map[string]string{"/etc/docker/file": "text"})
	if err := os.Symlink("etc", h.path("/link")); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"write":         func() error { return h.Write("/link/docker/file", []byte("text"), []byte("new"), Attrs{Mode: 0o644}) },
		"remove":        func() error { return h.Remove("/link/docker/file", []byte("text")) },
		"make folder":   func() error { return h.MakeFolder("/link/docker/new", 0o755) },
		"remove folder": func() error { return h.RemoveFolder("/link/docker") },
		"rename folder": func() error { return h.RenameFolder("/link/docker", "/link/other") },
		"sync":          func() error { return h.SyncFolder("/link/docker") },
		"remove temp":   func() error { return h.RemoveTemp("/link/docker/file") },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "became a symbolic link") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if f, err := h.Read("/etc/docker/file"); err != nil || string(f.Data) != "text" {
		t.Errorf("%q, %v", f.Data, err)
	}
}

func TestAFolderGetsItsModeWhateverTheUmaskIfOnlyRootCanExchangeIt(t *testing.T) {
	h := running(t, tree(t, map[string]string{"/a/": "", "/b/": ""}))
	if err := os.Chmod(h.path("/b"), 0o777); err != nil {
		t.Fatal(err)
	}
	old := unix.Umask(0o077)
	safe, unsafe := h.MakeFolder("/a/new", 0o755), h.MakeFolder("/b/new", 0o755)
	unix.Umask(old)
	if info, err := os.Stat(h.path("/a/new")); safe != nil || err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v, %v", info, err, safe)
	}
	if unsafe == nil || !strings.Contains(problem.Hint(unsafe), "umask") {
		t.Errorf("in a folder of all users: %v", unsafe)
	}
	if info, err := os.Stat(h.path("/b/new")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("in a folder of all users: %v, %v", info, err)
	}
	if err := h.MakeFolder("/b/usual", 0o755); err != nil {
		t.Errorf("with the usual umask: %v", err)
	}
}

// On the host that the tests run on, with its own folders.
func TestTheRunningHostsFolders(t *testing.T) {
	needRoot(t)
	h, err := Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Trusted("/etc/passwd"); err != nil {
		t.Error(err)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err := h.Read(name); err != nil || string(f.Data) != "text" || f.Unsafe == nil {
		t.Errorf("%+v, %v", f, err)
	}
	if err := h.Trusted(name); err == nil || !strings.Contains(err.Error(), "every user may create files in /") {
		t.Errorf("a file below %s: %v", os.TempDir(), err)
	}
}
