package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/proxy/peer/cgroup"
)

// slice is a slice of this test's own in the kernel's hierarchy of control groups, which is mounted
// at dir whatever version the host itself uses.
type slice struct {
	t         *testing.T
	dir, path string
	groups    *cgroup.Hierarchy
}

func newSlice(t *testing.T) *slice {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount the hierarchy of control groups")
	}
	dir := t.TempDir()
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	s := &slice{t: t, dir: dir, path: fmt.Sprintf("/sidemirror-test-%d-%d.slice", os.Getpid(), time.Now().UnixNano())}
	t.Cleanup(func() {
		if err := errors.Join(s.remove(""), unix.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	})
	s.make("")
	s.groups = cgroup.Open(dir)
	if !s.groups.Complete() {
		t.Fatal("a mounted hierarchy is not recognized")
	}
	return s
}

func (s *slice) folder(name string) string { return filepath.Join(s.dir, s.path, name) }

func (s *slice) make(name string) {
	s.t.Helper()
	if err := os.MkdirAll(s.folder(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// remove removes a group and those in it. The kernel refuses for a moment after the last process has
// ended.
func (s *slice) remove(name string) error {
	entries, err := os.ReadDir(s.folder(name))
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, s.remove(filepath.Join(name, e.Name())))
		}
	}
	for range 500 {
		if rmErr := syscall.Rmdir(s.folder(name)); rmErr == nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(err, fmt.Errorf("%s cannot be removed", name))
}

// trust is what a host whose hierarchy this is has by default, for this test's user.
func (s *slice) trust(refused *Refusals, more ...string) *Trust {
	units := cgroup.NewUnits(append([]string{"default"}, more...))
	return &Trust{uids: me(), units: units, groups: s.groups, refused: refused}
}

// connectFrom connects from a process in a group.
func (s *slice) connectFrom(name string) (ctx context.Context, pid int) {
	s.t.Helper()
	s.make(name)
	group, err := os.Open(s.folder(name))
	if err != nil {
		s.t.Fatal(err)
	}
	defer group.Close()
	l := listen(s.t, "tcp4", "127.0.0.1:0")
	pid, stop := dialFromProcess(s.t, l.Addr().String(), &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())})
	s.t.Cleanup(stop)
	return ConnContext(s.t.Context(), accept(s.t, l)), pid
}

func TestRootIsTrustedInTheGroupsOfEnginesOnly(t *testing.T) {
	s := newSlice(t)
	container := "docker-" + strings.Repeat("a1", 32) + ".scope"
	for group, want := range map[string]bool{
		"docker.service":                   true,
		"runtime.slice/containerd.service": true,
		"ci.service":                       false,
		container:                          false,
		container + "/docker.service":      false,
		"docker.service/x":                 false,
	} {
		t.Run(group, func(t *testing.T) {
			ctx, _ := s.connectFrom(group)
			var refused Refusals
			trust := s.trust(&refused)
			if got := Trusted(ctx, trust); got != want {
				t.Errorf("trusted: %v", got)
			}
			list := refused.Since(time.Time{}, trust)
			if want {
				if len(list) != 0 {
					t.Errorf("refused: %+v", list)
				}
				return
			}
			if len(list) != 1 || list[0].Group != s.path+"/"+group || !list[0].Named || list[0].Requests != 1 ||
				list[0].Container != strings.HasPrefix(group, "docker-") {
				t.Errorf("recorded: %+v", list)
			}
		})
	}
}

func TestWhatTheConfigurationTrustsLaterIsTrustedOnTheSameConnection(t *testing.T) {
	s := newSlice(t)
	ctx, _ := s.connectFrom("ci.service")
	var refused Refusals
	before, after := s.trust(&refused), s.trust(&refused, "ci.service")
	for range 3 {
		if Trusted(ctx, before) {
			t.Fatal("trusted before")
		}
	}
	if Trusted(Unrecorded(ctx), before) {
		t.Error("trusted because it is not recorded")
	}
	if list := refused.Since(time.Time{}, before); len(list) != 1 || list[0].Requests != 3 {
		t.Errorf("recorded: %+v", list)
	}
	if !Trusted(ctx, after) {
		t.Error("not trusted after")
	}
	if list := refused.Since(time.Time{}, after); len(list) != 0 {
		t.Errorf("still listed: %+v", list)
	}
	if Trusted(ctx, before) {
		t.Error("trusted when the configuration is as before")
	}
}

// A socket stays in the group that it was made in.
func TestASocketOfAGroupThatIsGoneIsNotTrusted(t *testing.T) {
	s := newSlice(t)
	ctx, pid := s.connectFrom("docker.service")
	s.make("ci.service")
	if err := os.WriteFile(s.folder("ci.service/cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	if !Trusted(ctx, s.trust(nil)) {
		t.Error("not trusted though its process has only moved")
	}
	if err := s.remove("docker.service"); err != nil {
		t.Fatal(err)
	}
	if !Trusted(ctx, s.trust(nil)) {
		t.Error("a group that was looked up is forgotten")
	}
	s.groups = cgroup.Open(s.dir)
	if Trusted(ctx, s.trust(nil)) {
		t.Error("a group that cannot be found is trusted")
	}
}

// From its own cgroup namespace, a process sees nothing of the groups outside.
func TestAGroupOutsideTheNamespaceIsNotTrusted(t *testing.T) {
	s := newSlice(t)
	ctx, _ := s.connectFrom("docker.service")
	s.make("sidemirror.service")
	within := t.TempDir() // as after unshare(2), a mount that begins at a group
	if err := unix.Mount(s.folder("sidemirror.service"), within, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(within, 0); err != nil {
			t.Error(err)
		}
	}()
	s.groups = cgroup.Open(within)
	if Trusted(ctx, s.trust(nil, "*")) {
		t.Error("trusted")
	}
}

func TestWhereUnitsCannotBeToldApartTheUserDecidesAndThatIsReported(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	_, server := connect(t, l, "tcp4", l.Addr().String())
	ctx := ConnContext(t.Context(), server)
	version1 := &Trust{uids: me(), groups: cgroup.Open(t.TempDir())}
	if !Trusted(ctx, version1) || !strings.Contains(version1.Weakness(), "version 1") {
		t.Errorf("version 1: trusted %v, %q", Trusted(ctx, version1), version1.Weakness())
	}
	defer unreported.Store(unreported.Load())
	old := &Trust{uids: me(), groups: thisHost()}
	if caller := (Caller{UID: me()[0], Inode: 1, State: 1}); !old.Trusts(caller) || old.Weakness() == "" {
		t.Errorf("a kernel without the attribute: trusted %v, %q", old.Trusts(caller), old.Weakness())
	}
}

// On hosts with both versions, a group of version 2 may still show that it is a container's.
func TestAContainerIsRecognizedWhereBothVersionsAreUsed(t *testing.T) {
	s := newSlice(t)
	both := t.TempDir()
	unified := filepath.Join(both, "unified")
	if err := os.Mkdir(unified, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(s.dir, unified, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(unified, 0); err != nil {
			t.Error(err)
		}
	}()
	s.groups = cgroup.Open(both)
	for group, want := range map[string]bool{"ci.service": true, "libpod-" + strings.Repeat("0f", 32) + ".scope": false} {
		ctx, _ := s.connectFrom(group)
		if got := Trusted(ctx, s.trust(nil)); got != want {
			t.Errorf("%s: trusted %v", group, got)
		}
	}
	if s.trust(nil).Weakness() == "" {
		t.Error("the weakness is not reported")
	}
}

func TestRefusalsAreBoundedAndTheLastOnesStay(t *testing.T) {
	var r Refusals
	for uid := range uint32(3 * maxRefusals) {
		r.note(Caller{UID: 1000 + uid})
		r.note(Caller{UID: 1})
	}
	list := r.Since(time.Time{}, byUser(0))
	if len(list) != maxRefusals {
		t.Errorf("%d callers are remembered", len(list))
	}
	if list[0].UID != 1 || list[0].Requests != 3*maxRefusals || list[0].Named {
		t.Errorf("the last one is %+v", list[0])
	}
	if late := r.Since(time.Now().Add(time.Hour), byUser(0)); len(late) != 0 {
		t.Errorf("%d of the future", len(late))
	}
	(*Refusals)(nil).note(Caller{})
}
