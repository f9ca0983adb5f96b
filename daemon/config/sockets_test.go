package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addresses(list ...string) (addrs []netip.AddrPort) {
	for _, text := range list {
		addrs = append(addrs, netip.MustParseAddrPort(text))
	}
	return addrs
}

func TestASocketCoversTheAddressesWhoseConnectionsItAccepts(t *testing.T) {
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
		if got := covers(netip.MustParseAddrPort(tt.has), netip.MustParseAddrPort(tt.want)); got != tt.covers {
			t.Errorf("%s covers %s: %v", tt.has, tt.want, got)
		}
	}
}

func TestSocketsOfSystemdReplaceTheDefaultAddresses(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, "")
	if err := c.UseSockets(nil); err != nil || !slices.Equal(c.Listen, Default().Listen) {
		t.Errorf("without sockets: %v, %v", c.Listen, err)
	}
	open := addresses("127.0.0.1:205", "[::1]:205")
	if err := c.UseSockets(open); err != nil || !slices.Equal(c.Listen, open) {
		t.Errorf("with sockets: %v, %v", c.Listen, err)
	}
	if url, err := c.MirrorURL(); err != nil || url != "http://127.0.0.1:205" {
		t.Errorf("engines are pointed at %s, %v", url, err)
	}
}

func TestListenThatNamesAnAddressWithoutASocketIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		open    []netip.AddrPort
		listen  string
		missing string
	}{
		{addresses("127.0.0.1:305", "[::1]:305"), `"127.0.0.1:305", "[::1]:305"`, ""},
		{addresses("127.0.0.1:305"), `"127.0.0.1:305", "127.0.0.1:306"`, "127.0.0.1:306"},
		{addresses("127.0.0.1:305"), `"127.0.0.1:1", "127.0.0.1:2"`, "127.0.0.1:1, 127.0.0.1:2"},
		{addresses("[::]:305"), `"127.0.0.1:305", "[::1]:305"`, ""},
		{addresses("127.0.0.1:305", "10.0.0.1:80"), `"127.0.0.1:305"`, ""},
	} {
		c := mustLoad(t, "# a comment\nlisten = ["+tt.listen+"]\n")
		before := slices.Clone(c.Listen)
		err := c.UseSockets(tt.open)
		if (err != nil) != (tt.missing != "") || !slices.Equal(c.Listen, before) {
			t.Errorf("open %v, listen %v: %v; listen is %v", tt.open, tt.listen, err, c.Listen)
			continue
		}
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.ExitCode() != 2 || !strings.HasSuffix(e.Problems()[0].Text, "not at "+tt.missing) || e.Problems()[0].Line != 2 ||
			!strings.Contains(e.Problems()[0].Hint, "systemctl edit sidemirror.socket") {
			t.Errorf("open %v, listen %v: %v", tt.open, tt.listen, err)
		}
	}
}

// A variable can set listen too.
func TestListenOfAVariableIsRefusedLikeThatOfTheFile(t *testing.T) {
	t.Parallel()
	c, err := Source{Environ: []string{"SIDEMIRROR_LISTEN=127.0.0.1:306"}}.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.UseSockets(addresses("127.0.0.1:305")); err == nil || !strings.Contains(err.Error(), "SIDEMIRROR_LISTEN: listen: systemd opens the sockets") {
		t.Errorf("error: %v", err)
	}
}
