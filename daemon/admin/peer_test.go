package admin

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The file's mode alone would let this user in.
func TestAnotherUserIsNotServedWhateverTheModeOfTheFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test starts processes of other users: run it as root")
	}
	folder, err := os.MkdirTemp("/tmp", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // another user must reach the socket
		t.Fatal(err)
	}
	serve(t, folder, nil)
	socket := filepath.Join(folder, name)
	if err := os.Chmod(socket, 0o666); err != nil { //nolint:gosec // as an administrator might by mistake
		t.Fatal(err)
	}
	ask := func(uid uint32) string {
		cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "20", "--unix-socket", socket, "http://sidemirror/healthz")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := ask(65534); strings.Contains(out, "ok") {
		t.Errorf("another user is served: %s", out)
	}
	if out := ask(0); out != "ok\n" {
		t.Errorf("root is not served: %s", out)
	}
}

func TestMembersOfTheGroupAreRecognizedBySupplementaryGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test starts processes of other users: run it as root")
	}
	folder, err := os.MkdirTemp("/tmp", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // another user must reach the socket
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(filepath.Join(folder, "s"), 0o666); err != nil { //nolint:gosec // another user must reach the socket
		t.Fatal(err)
	}
	var many []uint32
	for g := range uint32(200) { // more than the first buffer has room for
		many = append(many, 5000+g)
	}
	cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "20", "--unix-socket", filepath.Join(folder, "s"), "http://sidemirror/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: many}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	who, err := peerOf(c)
	_ = c.Close()
	_ = cmd.Wait()
	if err != nil || who.uid != 65534 || who.gid != 65534 || !slices.Contains(who.groups, 5199) {
		t.Errorf("%d groups of %d:%d, %v", len(who.groups), who.uid, who.gid, err)
	}
}
