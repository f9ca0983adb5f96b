package main

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/sandbox"
)

// fakeManager is a service manager that runs the proxy.
type fakeManager struct {
	open    []netip.AddrPort
	service sandbox.Service
	found   bool
}

func (f fakeManager) SocketAddresses(context.Context) ([]netip.AddrPort, error) { return f.open, nil }
func (f fakeManager) Proxy(context.Context) (sandbox.Service, bool, error) {
	return f.service, f.found, nil
}

// checkText runs "config check" on a configuration of which only text differs from one that is right.
func checkText(t *testing.T, systemd serviceManager, text string) (notes string, err error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	if !strings.Contains(text, "listen") {
		text = "listen = ['127.0.0.1:305']\n" + text
	}
	if !strings.Contains(text, "[credentials]") {
		text += "\n[credentials]\nstore = '/etc/no-store.json'\n"
	}
	text += "\n[cache]\ndir = ''\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	check := configCheck{source: config.Source{Path: file}, systemd: systemd}
	_, err = check.run(t.Context())
	for _, note := range check.notes {
		notes += note.Error() + "; " + note.Hint + "\n"
	}
	return notes, err
}

func TestConfigCheckExitCodes(t *testing.T) {
	held := fakeManager{open: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:305")}, found: true}
	for name, tt := range map[string]struct {
		systemd serviceManager
		text    string
		code    int
		says    string
	}{
		"right":                             {fakeManager{}, "", 0, ""},
		"right, with systemd":               {held, "", 0, ""},
		"an unknown key":                    {fakeManager{}, "lissten = 1", 2, "did you mean"},
		"a certificate that is missing":     {fakeManager{}, "[registry.'ghcr.io']\nca = '/etc/no-ca.pem'", 2, "no such file"},
		"logins that are missing":           {fakeManager{}, "[credentials]\nstore = '/etc/no-store.json'\nfiles = ['/etc/no-logins.json']", 1, "no such file"},
		"an address that this host has not": {fakeManager{}, "listen = ['127.0.0.1:305', '192.0.2.7:305']", 1, "192.0.2.7"},
		"any address, with systemd's sockets": {fakeManager{open: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:305")}},
			"listen = ['192.0.2.7:305']", 0, ""},
		"an address without a socket": {held, "listen = ['127.0.0.1:306']", 2, "systemd opens the sockets, and not at 127.0.0.1:306"},
	} {
		_, err := checkText(t, tt.systemd, tt.text)
		code := 0
		if err != nil {
			code = exitCode(err)
		}
		if code != tt.code || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: exit code %d: %v", name, code, err)
		}
	}
}

// A credential file and a certificate that root can read and the service's user cannot.
func TestConfigCheckReadsAsTheUserOfTheService(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("/var/tmp", "check")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	logins, authority := filepath.Join(dir, "logins.json"), filepath.Join(dir, "ca.pem")
	server := httptest.NewTLSServer(nil)
	server.Close()
	system := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(logins, []byte(`{"auths":{}}`), 0o600), os.WriteFile(authority, system, 0o600)); err != nil {
		t.Fatal(err)
	}
	files := "[credentials]\nstore = '/etc/no-store.json'\nfiles = ['" + logins + "']"
	ca := "[registry.'ghcr.io']\nca = '" + authority + "'\n[credentials]\nstore = '/etc/no-store.json'"
	other := sandbox.Service{UID: 65534, GID: 65534}
	hiding := sandbox.Service{UID: 65534, GID: 65534, Hidden: []string{"/var/tmp"}}
	for name, tt := range map[string]struct {
		systemd serviceManager
		text    string
		code    int
	}{
		"no service": {fakeManager{}, files, 0}, "no service, a certificate": {fakeManager{}, ca, 0},
		"a service of root": {fakeManager{found: true}, files, 0},
		"another user":      {fakeManager{found: true, service: other}, files, 1}, "another user, a certificate": {fakeManager{found: true, service: other}, ca, 2},
	} {
		if _, err := checkText(t, tt.systemd, tt.text); (err != nil) != (tt.code != 0) || err != nil && exitCode(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(os.Chmod(logins, 0o644), os.Chmod(authority, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{files, ca} {
		if _, err := checkText(t, fakeManager{found: true, service: other}, text); err != nil {
			t.Errorf("readable: %v", err)
		}
		if _, err := checkText(t, fakeManager{found: true, service: hiding}, text); err == nil {
			t.Errorf("in a folder that is hidden from the service: no error for %s", text)
		}
	}
	// systemd passes credentials only to a service that runs.
	passed := "[credentials]\nstore = '/etc/no-store.json'\nfiles = ['/run/credentials/sidemirror.service/x.json']"
	if notes, err := checkText(t, fakeManager{found: true, service: other}, passed); err != nil || !strings.Contains(notes, "does not run") {
		t.Errorf("a credential of systemd's: %v, notes %s", err, notes)
	}
}
