package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// certified serves h by TLS with a certificate for names that ends at end. It returns the file with
// the certificate, which is its own authority.
func certified(t *testing.T, h http.HandlerFunc, end time.Time, names ...string) (url, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: end.Add(-48 * time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if len(names) > 0 {
		template.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL, ca
}

// closedURL is an address at which no process listens.
func closedURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestADiagnosisNamesTheStepThatFails(t *testing.T) {
	well := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	respond := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	plain := func(h http.HandlerFunc) func(*testing.T) (string, string) {
		return func(t *testing.T) (string, string) { return serve(t, h).URL, "" }
	}
	later := time.Now().Add(24 * time.Hour)
	withLogin := func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "right" {
			w.Header().Set("Www-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	login := func(password string) credential.Credential {
		return credential.Credential{Username: "me", Password: credential.NewSecret(password)}
	}
	for name, test := range map[string]struct {
		at     func(t *testing.T) (url, ca string)
		cred   credential.Credential
		unread error
		step   string       // the last one
		code   problem.Code // "" if all is well
	}{
		"all is well":                 {at: plain(well), step: "login"},
		"by TLS":                      {at: func(t *testing.T) (string, string) { return certified(t, well, later) }, step: "login"},
		"a login that is accepted":    {at: plain(withLogin), cred: login("right"), step: "login"},
		"a login that is refused":     {at: plain(withLogin), cred: login("wrong"), step: "login", code: "login-refused"},
		"a login that cannot be read": {at: plain(well), unread: &problem.Problem{Code: "helper-failed", Text: "x"}, step: "login", code: "helper-failed"},
		"a login that cannot be read for a reason without a code": {at: plain(well), unread: errors.New("x"), step: "login", code: "login-unreadable"},
		"no process listens": {at: func(t *testing.T) (string, string) { return closedURL(t), "" }, step: "connection", code: "upstream-unreachable"},
		"no such host":       {at: func(*testing.T) (string, string) { return "https://registry.invalid", "" }, step: "host name", code: "upstream-name-unknown"},
		"no name server":     {at: func(*testing.T) (string, string) { return "https://registry.example", "" }, step: "host name", code: "name-servers-silent"},
		"an authority that is not known": {at: func(t *testing.T) (string, string) {
			url, _ := certified(t, well, later)
			return url, ""
		}, step: "certificate", code: "upstream-ca-unknown"},
		"an expired certificate":         {at: func(t *testing.T) (string, string) { return certified(t, well, time.Now().Add(-time.Hour)) }, step: "certificate", code: "upstream-certificate-expired"},
		"a certificate from the future":  {at: func(t *testing.T) (string, string) { return certified(t, well, time.Now().Add(72*time.Hour)) }, step: "certificate", code: "upstream-certificate-expired"},
		"a certificate for another name": {at: func(t *testing.T) (string, string) { return certified(t, well, later, "other.example") }, step: "certificate", code: "upstream-certificate-name"},
		"plain HTTP where TLS is expected": {at: func(t *testing.T) (string, string) {
			return strings.Replace(serve(t, well).URL, "http:", "https:", 1), ""
		}, step: "certificate", code: "upstream-not-tls"},
		"a clock that is wrong": {at: plain(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-25*time.Hour).UTC().Format(http.TimeFormat))
		}), step: "clock", code: "clock-wrong"},
		"too many requests": {at: plain(respond(429)), step: "response", code: "upstream-rate-limited"},
		"failing":           {at: plain(respond(503)), step: "response", code: "upstream-failing"},
		"no registry":       {at: plain(respond(404)), step: "response", code: "upstream-no-registry"},
		"silent":            {at: plain(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), step: "response", code: "upstream-silent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, ca := test.at(t)
			resolver := newDNS(t, map[string][]string{})
			if test.code == "name-servers-silent" {
				resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }}
			}
			u := newUpstream(t, Config{URL: mustURL(url), Registry: config.Registry{CA: ca, DialTimeout: 5 * time.Second, HeaderTimeout: 2 * time.Second}, resolver: resolver})
			steps := u.Diagnose(t.Context(), test.cred, test.unread)
			last := steps[len(steps)-1]
			var code problem.Code
			if last.Problem != nil {
				code = last.Problem.Code
				if last.Problem.Hint == "" && test.unread == nil {
					t.Errorf("%v comes without a hint", last.Problem)
				}
			}
			if last.Name != test.step || code != test.code {
				t.Errorf("the last step is %q (%v), want %q with %q", last.Name, last.Problem, test.step, test.code)
			}
			for _, step := range steps[:len(steps)-1] {
				if step.Problem != nil || step.Text == "" {
					t.Errorf("before it: %+v", step)
				}
			}
		})
	}
}
