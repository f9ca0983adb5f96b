package listener

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCovers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		has, want string
		covers    bool
	}{
		{"127.0.0.1:305", "127.0.0.1:305", true},
		{"127.0.0.1:305", "127.0.0.1:306", false},
		{"127.0.0.1:305", "127.0.0.2:305", false},
		{"0.0.0.0:305", "10.0.0.1:305", true},
		{"0.0.0.0:305", "[::1]:305", false},
		{"[::]:305", "127.0.0.1:305", true},
		{"[::]:305", "[fd00::1]:305", true},
	} {
		if got := Covers(netip.MustParseAddrPort(tt.has), netip.MustParseAddrPort(tt.want)); got != tt.covers {
			t.Errorf("%s covers %s: %v", tt.has, tt.want, got)
		}
	}
}

func TestAddressThatNoSocketServesIsAProblem(t *testing.T) {
	t.Parallel()
	parse := func(list ...string) (addrs []netip.AddrPort) {
		for _, text := range list {
			addrs = append(addrs, netip.MustParseAddrPort(text))
		}
		return addrs
	}
	for _, tt := range []struct {
		open, listen []netip.AddrPort
		missing      string
	}{
		{parse("127.0.0.1:305", "[::1]:305"), parse("127.0.0.1:305", "[::1]:305"), ""},
		{parse("127.0.0.1:305"), parse("127.0.0.1:305", "127.0.0.1:306"), "127.0.0.1:306"},
		{parse("[::]:305"), parse("127.0.0.1:305", "[::1]:305"), ""},
		{parse("127.0.0.1:305", "10.0.0.1:80"), parse("127.0.0.1:305"), ""},
	} {
		p := CheckServed(tt.open, tt.listen)
		if (p != nil) != (tt.missing != "") || p != nil && !strings.HasSuffix(p.Text, ": "+tt.missing) {
			t.Errorf("open %v, listen %v: %v", tt.open, tt.listen, p)
		}
	}
	if p := CheckServed(parse("127.0.0.1:305"), parse("127.0.0.1:305", "[::1]:305")); (p != nil) != HasIPv6() {
		t.Errorf("without a socket at [::1]: %v, although the host has it: %v", p, HasIPv6())
	}
}

func TestPortThatAnyUserCanTakeIsAProblem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		setting, addr string
		problem       bool
	}{
		{"1024\n", "127.0.0.1:305", false},
		{"1024\n", "127.0.0.1:1023", false},
		{"1024\n", "127.0.0.1:1024", true},
		{"1024\n", "[::1]:5115", true},
		{"0\n", "127.0.0.1:305", true},
		{"300\n", "127.0.0.1:305", true},
		{"no number", "127.0.0.1:305", false},
		{"", "127.0.0.1:5115", true},
	} {
		setting := filepath.Join(t.TempDir(), "start")
		if tt.setting != "" {
			if err := os.WriteFile(setting, []byte(tt.setting), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := checkPort(netip.MustParseAddrPort(tt.addr), setting)
		if (p != nil) != tt.problem || p != nil && (p.Code != "port-unprivileged" || p.Hint == "") {
			t.Errorf("%s with the setting %q: %v", tt.addr, tt.setting, p)
		}
	}
}
