package portowner

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFirstUnprivilegedPort(t *testing.T) {
	for text, want := range map[string]uint16{"0\n": 0, "1024\n": 1024, "80": 80, "": 1024, "x": 1024, "70000": 1024} {
		name := filepath.Join(t.TempDir(), "setting")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := FirstUnprivileged(name); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	if got := FirstUnprivileged("/nonexistent"); got != 1024 {
		t.Errorf("without the setting: %d", got)
	}
}

func TestOwnerOfAPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if owner, err := Of(addr); err != nil || !owner.Found || !owner.Trusted || owner.Name == "" {
		t.Errorf("%+v, %v", owner, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if owner, err := Of(addr); err != nil || owner.Found {
		t.Errorf("after it is closed: %+v, %v", owner, err)
	}
	if _, err := Of(netip.AddrPort{}); err == nil {
		t.Error("no error for no address")
	}
}

func TestTrustedUsers(t *testing.T) {
	if !IsTrusted(0) || !IsTrusted(uint32(os.Getuid())) || IsTrusted(12345) {
		t.Error("root or this user is not trusted, or another one is")
	}
	if Name(0) != `"root"` || Name(4000000000) != "4000000000" {
		t.Errorf("%s, %s", Name(0), Name(4000000000))
	}
}

func TestHintNamesAPortThatIsReservedOrTheSetting(t *testing.T) {
	for first, want := range map[uint16]string{
		0:    "net.ipv4.ip_unprivileged_port_start=1024",
		305:  "net.ipv4.ip_unprivileged_port_start=1024",
		306:  "below 306, such as the default 305",
		1024: "below 1024, such as the default 305",
	} {
		if got := Hint(first); !strings.Contains(got, want) {
			t.Errorf("from %d on: %s", first, got)
		}
	}
}
