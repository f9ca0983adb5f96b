package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/acme"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "docker.example.com"

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// issueTest returns a certificate for names, with its key, as PEM.
func issueTest(t *testing.T, notBefore, notAfter time.Time, names ...string) (cert, key []byte) {
	t.Helper()
	private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: notBefore, NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = encodeKey(private); err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// files writes a certificate for the name and its key.
func files(t *testing.T, notBefore, notAfter time.Time, names ...string) Settings {
	t.Helper()
	dir := t.TempDir()
	cert, key := issueTest(t, notBefore, notAfter, names...)
	return Settings{Names: []string{name}, Cert: put(t, filepath.Join(dir, "cert.pem"), cert), Key: put(t, filepath.Join(dir, "key.pem"), key)}
}

func newAt(now time.Time) *Provider {
	p := New()
	p.now = func() time.Time { return now }
	return p
}

func codes(list []*problem.Problem) string {
	var all []string
	for _, p := range list {
		if p.Hint == "" {
			all = append(all, "without a hint:")
		}
		all = append(all, string(p.Code))
	}
	return strings.Join(all, " ")
}

func TestProblemsOfCertificatesInFiles(t *testing.T) {
	day := 24 * time.Hour
	for what, tt := range map[string]struct {
		settings Settings
		want     string
	}{
		"a good one":          {files(t, noon.Add(-day), noon.Add(80*day), name), ""},
		"a wildcard":          {files(t, noon.Add(-day), noon.Add(80*day), "*.example.com"), ""},
		"one that ends soon":  {files(t, noon.Add(-80*day), noon.Add(5*day), name), "site-certificate-old"},
		"one that has ended":  {files(t, noon.Add(-80*day), noon.Add(-day), name), "site-certificate-expired"},
		"one of the future":   {files(t, noon.Add(day), noon.Add(80*day), name), "site-certificate-expired"},
		"one of another name": {files(t, noon.Add(-day), noon.Add(80*day), "other.example.com"), "site-certificate-name"},
		"no file":             {Settings{Names: []string{name}, Cert: "/nonexistent/a.pem", Key: "/nonexistent/b.pem"}, "site-certificate-unreadable"},
	} {
		p := newAt(noon)
		p.Update(tt.settings)
		if got := codes(p.Problems()); got != tt.want {
			t.Errorf("%s: %q, want %q", what, got, tt.want)
		}
	}
}

func TestDamagedFileLeavesTheCertificateInUse(t *testing.T) {
	p := newAt(noon)
	good := files(t, noon.Add(-time.Hour), noon.Add(90*24*time.Hour), name)
	p.Update(good)
	other := files(t, noon.Add(-time.Hour), noon.Add(90*24*time.Hour), name)
	for what, bad := range map[string]Settings{
		"a key of another certificate": {Names: []string{name}, Cert: good.Cert, Key: other.Key},
		"no certificate":               {Names: []string{name}, Cert: put(t, filepath.Join(t.TempDir(), "x"), []byte("x")), Key: good.Key},
		"a file without an end":        {Names: []string{name}, Cert: "/dev/zero", Key: good.Key},
	} {
		p.Update(bad)
		if got := codes(p.Problems()); got != "site-certificate-unreadable" {
			t.Errorf("%s: %q", what, got)
		}
		if cert, err := p.get(&tls.ClientHelloInfo{ServerName: name}); err != nil || cert.Leaf.DNSNames[0] != name {
			t.Errorf("%s: the certificate is gone: %v", what, err)
		}
	}
}

func TestHandshakeGetsTheCertificateOfItsName(t *testing.T) {
	folder := t.TempDir()
	for _, n := range []string{name, "ghcr.example.com"} {
		cert, key := issueTest(t, noon.Add(-time.Hour), noon.Add(90*24*time.Hour), n)
		put(t, filepath.Join(folder, n+".pem"), append(key, cert...))
	}
	p := newAt(noon)
	p.Update(Settings{Names: []string{name, "ghcr.example.com"}, Folder: folder})
	for asked, want := range map[string]string{name: name, "GHCR.example.com.": "ghcr.example.com", "": "", "other.example.com": "", "../account": ""} {
		cert, err := p.get(&tls.ClientHelloInfo{ServerName: asked})
		if (err == nil) != (want != "") || err == nil && cert.Leaf.DNSNames[0] != want {
			t.Errorf("%q: %v", asked, err)
		}
	}
	if _, err := p.get(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{acme.ALPNProto}}); err == nil {
		t.Error("a challenge that was not begun has a certificate")
	}
}

// failing is an ACME server that refuses each request.
func failing(t *testing.T) (directory, ca string, asked func() int) {
	t.Helper()
	n := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return server.URL, put(t, filepath.Join(t.TempDir(), "ca.pem"), data), func() int { return n }
}

func TestAttemptsThatFailBecomeRareAndASettingMakesThemAtOnce(t *testing.T) {
	directory, ca, asked := failing(t)
	s := Settings{Names: []string{name}, Folder: filepath.Join(t.TempDir(), "site"), ACME: Server{Directory: directory, CA: ca, AcceptTerms: true}}
	now := noon
	p := New()
	p.now = func() time.Time { return now }
	p.Update(s)
	var waits []time.Duration
	for range 6 {
		p.renew(t.Context())
		before := asked()
		p.renew(t.Context())
		if asked() != before {
			t.Error("it is asked again at once")
		}
		e := p.names[name]
		waits = append(waits, e.retry.Sub(now))
		now = e.retry
	}
	for i, want := range []time.Duration{time.Minute, 4 * time.Minute, 16 * time.Minute, time.Hour, time.Hour, time.Hour} {
		if waits[i] != want {
			t.Errorf("attempt %d: the next one is after %v, want %v", i+1, waits[i], want)
		}
	}
	before := asked()
	p.renew(t.Context()) // it is due
	p.Update(s)
	p.renew(t.Context())
	if asked() < before+2 {
		t.Error("the settings came into force again, and nothing was tried")
	}
	if list := p.Certificates(); len(list) != 1 || !strings.Contains(list[0].Problem, "503") || !list[0].NotAfter.IsZero() {
		t.Errorf("%+v", list)
	}
}

func TestCertificateIsDueWhenAThirdOfItsTimeIsLeftOrThirtyDays(t *testing.T) {
	day := 24 * time.Hour
	for lifetime, left := range map[time.Duration]time.Duration{6 * day: 2 * day, 90 * day: 30 * day, 398 * day: 30 * day, 30 * time.Second: 10 * time.Second} {
		leaf := &x509.Certificate{NotBefore: noon, NotAfter: noon.Add(lifetime)}
		if got := leaf.NotAfter.Sub(renewAt(leaf)); got != left {
			t.Errorf("one of %v is due %v before its end, want %v", lifetime, got, left)
		}
	}
}

func TestServerIsNotAskedWithoutConsent(t *testing.T) {
	directory, ca, asked := failing(t)
	p := newAt(noon)
	p.Update(Settings{Names: []string{name}, Folder: t.TempDir(), ACME: Server{Directory: directory, CA: ca}})
	p.renew(t.Context())
	if got := codes(p.Problems()); asked() != 0 || got != "site-terms" {
		t.Errorf("%d requests, %q", asked(), got)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	directory, ca, _ := failing(t)
	p := New()
	p.Update(Settings{Names: []string{name}, Folder: t.TempDir(), ACME: Server{Directory: directory, CA: ca, AcceptTerms: true}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	cancel()
	<-done
}

func TestIssuedCertificateMustFit(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain := func(of *ecdsa.PrivateKey, dns string) [][]byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{dns}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, of.Public(), of)
		if err != nil {
			t.Fatal(err)
		}
		return [][]byte{der}
	}
	for what, tt := range map[string]struct {
		chain [][]byte
		ok    bool
	}{
		"it fits": {chain(key, name), true}, "another name": {chain(key, "other.example.com"), false}, "another key": {chain(other, name), false},
		"none": {nil, false}, "no certificate": {[][]byte{[]byte("x")}, false},
	} {
		if err := fits(tt.chain, name, key); (err == nil) != tt.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestStoredKeysAreForThisUserAlone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "site")
	first, err := accountKey(folder)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := accountKey(folder); err != nil || !again.Equal(first) {
		t.Errorf("another key: %v", err)
	}
	for path, mode := range map[string]fs.FileMode{folder: 0o700, filepath.Join(folder, accountFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	put(t, filepath.Join(folder, accountFile), []byte("no key"))
	if _, err := accountKey(folder); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestCheckOfFilesFindsWhatVisitorsWouldSee(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	good := files(t, now.Add(-day), now.Add(60*day), name)
	other := files(t, now.Add(-day), now.Add(60*day), "other.example.com")
	for what, tt := range map[string]struct {
		cert, key string
		names     []string
		want      string
	}{
		"a certificate of the name":      {good.Cert, good.Key, []string{name}, ""},
		"a site without a name":          {good.Cert, good.Key, nil, ""},
		"a certificate of another name":  {other.Cert, other.Key, []string{name}, "site-certificate-name"},
		"a certificate of one name only": {good.Cert, good.Key, []string{name, "ghcr.example.com"}, "site-certificate-name"},
		"the key of another one":         {good.Cert, other.Key, []string{name}, "site-certificate-unreadable"},
		"no certificate":                 {good.Cert + ".none", good.Key, []string{name}, "site-certificate-unreadable"},
	} {
		var list []*problem.Problem
		if p := Check(tt.cert, tt.key, tt.names); p != nil {
			list = append(list, p)
		}
		if got := codes(list); got != tt.want {
			t.Errorf("%s: %q, want %q", what, got, tt.want)
		}
	}
	for what, times := range map[string][2]time.Duration{"expired": {-2 * day, -day}, "not valid yet": {day, 2 * day}} {
		s := files(t, now.Add(times[0]), now.Add(times[1]), name)
		if p := Check(s.Cert, s.Key, s.Names); p == nil || p.Code != "site-certificate-expired" || p.Hint == "" {
			t.Errorf("%s: %v", what, p)
		}
	}
}
