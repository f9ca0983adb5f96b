package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// storing makes a daemon store the last good configuration in folder.
func storing(folder string) func(*daemon) {
	return func(d *daemon) { d.lastGood = config.LastGood(folder) }
}

// faults make a configuration file faulty, each in another way.
var faults = map[string]func(t *testing.T, file string){
	"TOML":        func(t *testing.T, file string) { replaceFile(t, file, "listen = [") },
	"unknown key": func(t *testing.T, file string) { replaceFile(t, file, "lisen = []") },
	"wrong value": func(t *testing.T, file string) { replaceFile(t, file, "[log]\nlevel = 'loud'") },
	"too large":   func(t *testing.T, file string) { replaceFile(t, file, strings.Repeat("#\n", 1<<20)) },
	"not UTF-8":   func(t *testing.T, file string) { replaceFile(t, file, "listen = ['\xff']") },
	"missing":     func(t *testing.T, file string) { remove(t, file) },
	"folder":      func(t *testing.T, file string) { remove(t, file); mkdir(t, file) },
	"link to itself": func(t *testing.T, file string) {
		remove(t, file)
		if err := os.Symlink(filepath.Base(file), file); err != nil {
			t.Fatal(err)
		}
	},
	"missing certificates": func(t *testing.T, file string) {
		replaceFile(t, file, good(freeAddr(t))+"[registry.'a.example']\nca = '/nonexistent/ca.pem'\n")
	},
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// repair replaces what is at file by a file.
func repair(t *testing.T, file, text string) {
	t.Helper()
	if info, err := os.Lstat(file); err == nil && info.IsDir() {
		remove(t, file)
	}
	replaceFile(t, file, text)
}

// noticed saves the wait until the change of the file is noticed, except for two faults that show
// that it is.
func (r *running) noticed(fault string) {
	if fault != "folder" && fault != "missing" {
		r.sighup()
	}
}

// good is a configuration whose proxy answers at addr.
func good(addr string) string { return fmt.Sprintf("listen = [%q]\n[cache]\ndir = ''\n", addr) }

// status returns the status of the response to GET /v2/, which is 401 if a registry may want a login.
func status(t *testing.T, addr string) int {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, "http://"+addr+"/v2/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestFaultyConfigurationLeavesTheLastGoodOneInForce(t *testing.T) {
	for name, spoil := range faults {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			file, state := writeConfig(t, good(addr)), filepath.Join(t.TempDir(), "state")
			r := begin(t, file, nil, withProxy, storing(state))
			spoil(t, file)
			r.noticed(name)
			r.expect("; the configuration on disk is not in force: ")
			if got := status(t, addr); got != http.StatusUnauthorized {
				t.Errorf("while it runs: %d", got)
			}
			if log := r.log.String(); !strings.Contains(log, "the last good one stays in force") {
				t.Errorf("the log does not report it:\n%s", log)
			}
			r.cancel()
			if err := r.end(); err != nil {
				t.Fatal(err)
			}

			// The file still has its fault when the daemon starts again.
			r = begin(t, file, nil, withProxy, storing(state))
			if !strings.Contains(r.first, "; the configuration on disk is not in force: ") {
				t.Errorf("the first status line is %q", r.first)
			}
			if got := status(t, addr); got != http.StatusUnauthorized {
				t.Errorf("after the start: %d", got)
			}
			if log := r.log.String(); !strings.Contains(log, "the last good one is in force") {
				t.Errorf("the log does not report it:\n%s", log)
			}
			other := freeAddr(t)
			repair(t, file, good(other))
			r.noticed(name)
			r.expect("STATUS=serving every registry on " + other + "\n")
			if got := status(t, other); got != http.StatusUnauthorized {
				t.Errorf("after the repair: %d", got)
			}
		})
	}
}

// Sockets that systemd holds stay open: an engine that connects must not wait.
func TestStartWithoutAnyGoodConfigurationRefusesRequestsUntilTheRepair(t *testing.T) {
	for name, spoil := range faults {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			t.Setenv("SIDEMIRROR_LISTEN", addr) // not every faulty file has an address
			file := writeConfig(t, good(addr))
			spoil(t, file)
			withEnvironment := func(d *daemon) { d.source.Environ = os.Environ() }
			r := begin(t, file, nil, withProxy, withEnvironment, storing(filepath.Join(t.TempDir(), "state")))
			if !strings.Contains(r.first, "STATUS=refusing every request on "+addr+"; the configuration on disk is not in force: ") {
				t.Errorf("the first status line is %q", r.first)
			}
			resp, err := (&http.Transport{}).RoundTrip(mustRequest(t, "http://"+addr+"/v2/library/busybox/manifests/latest"))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || !resp.Close || !strings.Contains(string(body), `"code":"UNAVAILABLE"`) {
				t.Errorf("it responds %d, close %v: %s", resp.StatusCode, resp.Close, body)
			}
			repair(t, file, good(addr))
			r.noticed(name)
			r.expect("STATUS=serving every registry on " + addr + "\n")
			if got := status(t, addr); got != http.StatusUnauthorized {
				t.Errorf("after the repair: %d", got)
			}
		})
	}
}

func TestRefusalListensWhereTheFaultyFileSays(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, good(addr)+"[log]\nlevel = 'loud'\n"), nil)
	if !strings.Contains(r.first, "STATUS=refusing every request on "+addr+";") {
		t.Errorf("the first status line is %q", r.first)
	}
}

func TestStartByHandFailsWithoutAnyGoodConfiguration(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	d := newDaemon(config.Source{Path: writeConfig(t, good(freeAddr(t))+"nonsense = 1\n")}, io.Discard)
	err := d.run(t.Context())
	coded, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok || coded.ExitCode() != 2 || !strings.Contains(err.Error(), `unknown key "nonsense"`) {
		t.Errorf("got %v", err)
	}
}

// Without sockets of systemd's there may be no address to refuse requests at.
func TestStartFailsIfThereIsNeitherAConfigurationNorAnAddress(t *testing.T) {
	sdnotifytest.Listen(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := newDaemon(config.Source{Path: writeConfig(t, good(taken.Addr().String())+"nonsense = 1\n")}, io.Discard)
	err = d.run(t.Context())
	coded, ok := err.(interface{ Unwrap() []error })
	if !ok || len(coded.Unwrap()) != 2 || !strings.Contains(err.Error(), `unknown key "nonsense"`) || !strings.Contains(err.Error(), "the address is taken by") {
		t.Errorf("got %v", err)
	}
}

func TestCertificateThatAppearsBringsTheConfigurationIntoForce(t *testing.T) {
	addr := freeAddr(t)
	ca := filepath.Join(t.TempDir(), "certificates", "ca.pem")
	file := writeConfig(t, good(addr))
	r := begin(t, file, nil, withProxy)
	r.rewrite(good(addr) + fmt.Sprintf("[registry.'a.example']\nca = %q\n", ca))
	r.expect("; the configuration on disk is not in force: ")
	mkdir(t, filepath.Dir(ca))
	replaceFile(t, ca, newCertificate(t))
	r.expect("STATUS=serving every registry on " + addr + "\n")
}

func newCertificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestPortThatAnyUserCanTakeIsReported(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil, func(d *daemon) {
		d.checkPort = func(at netip.AddrPort) *problem.Problem {
			return &problem.Problem{Text: "any user can listen at " + at.String(), Hint: "use another port"}
		}
	})
	want := "any user can listen at " + addr
	if !strings.Contains(r.first, "; "+want+" (use another port)") || !strings.Contains(r.log.String(), want) {
		t.Errorf("the first status line is %q; the log:\n%s", r.first, r.log)
	}
}

func TestHostWithoutIPv6IsServedByIPv4(t *testing.T) {
	s := newSockets(nil)
	four := netip.MustParseAddrPort(freeAddr(t))
	six := netip.AddrPortFrom(netip.IPv6Loopback(), four.Port())
	c, err := s.prepare(t.Context(), []netip.AddrPort{four, six})
	if err != nil {
		t.Fatal(err)
	}
	c.cancel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = l.Close()
	}
	if want := map[bool]int{true: 2, false: 1}[err == nil]; len(c.addrs) != want {
		t.Errorf("served: %v, want %d addresses", c.addrs, want)
	}
	for _, absent := range []string{"192.0.2.1:305", "[2001:db8::1]:305"} {
		if _, err := s.prepare(t.Context(), []netip.AddrPort{four, netip.MustParseAddrPort(absent)}); err == nil {
			t.Errorf("%s: no error", absent)
		}
	}
}
