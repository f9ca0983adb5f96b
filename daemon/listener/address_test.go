package listener

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

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
