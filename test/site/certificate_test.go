package site

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/pebble"
)

const long = 24 * time.Hour

// startPebble starts an ACME server that issues certificates for a time. With noALPN it looks for
// challenges at port 80 alone.
func startPebble(t *testing.T, validity time.Duration, noALPN bool) *pebble.Server {
	t.Helper()
	return pebble.Start(t, pebble.Options{Gateway: gateway, Validity: validity, NoALPN: noALPN})
}

// acme returns the lines of [site] for an ACME server.
func acme(p *pebble.Server) string {
	return fmt.Sprintf("listen = [%q]\nacme_directory = %q\nacme_ca = %q\nacme_accept_terms = true\n", gateway+":443", p.Directory(), p.CA)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issued waits until the site shows a certificate of p's for both names.
func (r *rig) issued(p *pebble.Server) {
	r.t.Helper()
	r.Eventually("there are certificates", func() bool {
		client := r.visitor(p.Root())
		for _, name := range []string{hubName, ghcrName} {
			if a := harness.Fetch(client, http.MethodGet, "https://"+name+"/", nil); a.Status != http.StatusOK {
				return false
			}
		}
		return true
	})
}

func TestCertificatesAreIssuedByEachKindOfChallenge(t *testing.T) {
	for kind, noALPN := range map[string]bool{"TLS-ALPN-01": false, "HTTP-01": true} {
		t.Run(kind, func(t *testing.T) {
			p := startPebble(t, long, noALPN)
			r := start(t, acme(p)+fmt.Sprintf("http_listen = [%q]\n", gateway+":80"))
			r.issued(p)
			files, err := os.ReadDir(filepath.Join(r.Dir(), "home", "site"))
			if err != nil || len(files) != 3 {
				t.Fatalf("%v, %v", files, err)
			}
			for _, f := range files {
				if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
				}
			}
			if r.certificate("other.example.com") != nil {
				t.Error("there is a certificate for a name that is not the site's")
			}
			a := harness.Fetch(r.visitor(nil), http.MethodGet, "http://"+hubName+"/v2/", nil)
			if a.Status != http.StatusPermanentRedirect || a.Header.Get("Location") != "https://"+hubName+"/v2/" {
				t.Errorf("plain HTTP: %d, %q", a.Status, a.Header.Get("Location"))
			}
			serial := r.certificate(hubName).SerialNumber.String()
			r.Stop()
			r.Sidemirror = harness.Start(t, withState(r))
			r.Eventually("the stored certificate is used", func() bool {
				c := r.certificate(hubName)
				return c != nil && c.SerialNumber.String() == serial
			})
		})
	}
}

// withState returns the options of a daemon that continues with the state of r.
func withState(r *rig) harness.Options {
	o := r.options
	o.Env = append(o.Env, "STATE_DIRECTORY="+filepath.Join(r.Dir(), "home"))
	return o
}

func TestCertificateIsRenewedBeforeItExpires(t *testing.T) {
	p := startPebble(t, 12*time.Second, false)
	r := start(t, acme(p))
	r.issued(p)
	first := r.certificate(hubName)
	r.Eventually("another certificate is there", func() bool {
		next := r.certificate(hubName)
		return next != nil && next.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if next := r.certificate(hubName); !next.NotBefore.Before(first.NotAfter) {
		t.Errorf("the first expired %v, and the next one was issued %v", first.NotAfter, next.NotBefore)
	}
}

func TestOldCertificateStaysWhenTheACMEServerIsDown(t *testing.T) {
	p := startPebble(t, 9*time.Second, false)
	r := start(t, acme(p))
	r.issued(p)
	p.Stop()
	r.Eventually("the failed renewal is logged", func() bool { return strings.Contains(r.Log(), "no certificate was issued") })
	r.Eventually("the expiry is reported", func() bool { return strings.Contains(r.Log(), "code=site-certificate-expired") })
	expired := r.certificate(hubName)
	if expired == nil || time.Now().Before(expired.NotAfter) {
		t.Errorf("the site shows %+v", expired)
	}
	if a := r.Get("/v2/library/alpine/manifests/latest?ns=docker.io", nil); a.Status != 200 {
		t.Errorf("this host's engines get %d: %s", a.Status, a.Body)
	}
	p.Run()
	r.Eventually("another certificate is there", func() bool {
		next := r.certificate(hubName)
		return next != nil && next.NotAfter.After(expired.NotAfter)
	})
}

func TestServerThatIsDownAtTheStartIsAskedAgain(t *testing.T) {
	p := startPebble(t, long, false)
	p.Stop()
	r := start(t, acme(p))
	r.Eventually("it is logged", func() bool { return strings.Contains(r.Log(), "connection refused") })
	if r.certificate(hubName) != nil {
		t.Error("there is a certificate")
	}
	p.Run()
	r.Reload(r.options)
	r.issued(p)
}

func TestServerIsNotAskedWithoutTheAdministratorsConsent(t *testing.T) {
	p := startPebble(t, long, false)
	r := start(t, strings.Replace(acme(p), "acme_accept_terms = true\n", "", 1))
	r.Eventually("it is reported", func() bool { return strings.Contains(r.Log(), "code=site-terms") })
	if strings.Contains(p.Output(), "POST /sign-me-up") {
		t.Errorf("it was asked:\n%s", p.Output())
	}
}
