package credentials

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
)

// setting returns a duration of the environment, so that "make test-credentials" takes the minutes
// that a cloud's token takes.
func setting(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestATokenThatEndsIsRenewedWithoutAFailedPull(t *testing.T) {
	life, during := setting(t, "CREDENTIALS_TOKEN_LIFE", 4*time.Second), setting(t, "CREDENTIALS_DURING", 14*time.Second)
	const pulls, workers = 1000, 8
	i := newIssuer(t, life)
	s := i.serve(t, i.plugin(t, life)...)
	began := time.Now()
	var failed atomic.Int32
	harness.Together(workers, func(int) {
		for n := range pulls / workers {
			if a := s.Get(i.manifest(), nil); a.Status != 200 {
				failed.Add(1)
				t.Logf("pull %d: status %d: %s", n, a.Status, a.Says())
			}
			time.Sleep(time.Until(began.Add(during * time.Duration(n) / (pulls / workers))))
		}
	})
	took := time.Since(began)
	issued, refused := i.counts()
	t.Logf("%d pulls in %v with tokens of %v: %d failed, %d tokens, %d times a token that had ended", pulls, took.Round(time.Second), life, failed.Load(), issued, refused)
	if failed.Load() != 0 {
		t.Errorf("%d pulls failed", failed.Load())
	}
	// One at the start, one for each three quarters of a life, and one for each that ended meanwhile.
	if most := 2 + int(took/(life*7/10)) + refused; issued > most {
		t.Errorf("%d tokens were fetched, and %d are enough", issued, most)
	}
	if issued < 3 {
		t.Errorf("%d tokens: none ended while pulls ran", issued)
	}
}

// While the helper still has the answer from before, the registry refuses the old password.
func TestAPasswordThatChangesFailsNoPull(t *testing.T) {
	i := newIssuer(t, time.Hour)
	secret := filepath.Join(t.TempDir(), "secret")
	dir := helpers(t, map[string]string{"vault": `printf '{"Username":"me","Secret":"%s"}' "$(cat ` + secret + `)"`})
	file := write(t, filepath.Join(t.TempDir(), "config.json"), fmt.Sprintf(`{"credHelpers":{%q:"vault"}}`, i.host()), 0o600)
	change := func(n int) {
		password := fmt.Sprintf("%s-%d", canary, n)
		write(t, secret, password, 0o600)
		i.accept(password)
	}
	change(0)
	s := i.serve(t, "SIDEMIRROR_CREDENTIALS_FILES="+file, "SIDEMIRROR_CREDENTIALS_HELPER_DIRS="+dir)
	s.Get(i.manifest(), nil).Whole(t, "the first pull", image.Bytes)
	change(1)
	harness.Together(8, func(int) { s.Get(i.manifest(), nil).Whole(t, "a pull after the change", image.Bytes) })
}

func TestTheLastGoodLoginServesWhileAHelperFails(t *testing.T) {
	i := newIssuer(t, time.Hour)
	i.accept(canary)
	dir := helpers(t, map[string]string{"vault": `echo '{"Username":"me","Secret":"` + canary + `"}'`})
	settings := append(i.plugin(t, 2*time.Second), "SIDEMIRROR_CREDENTIALS_HELPERS="+"other.test=vault", "SIDEMIRROR_CREDENTIALS_HELPER_DIRS="+dir)
	s := i.serve(t, settings...)
	s.Get(i.manifest(), nil).Whole(t, "the first pull", image.Bytes)
	plugin := strings.TrimPrefix(settings[1], "SIDEMIRROR_CREDENTIALS_PLUGIN_DIR=") + "/issuer-plugin"
	good, err := os.ReadFile(plugin)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(data []byte) {
		write(t, plugin+".new", string(data), 0o755)
		if err := os.Rename(plugin+".new", plugin); err != nil {
			t.Fatal(err)
		}
	}
	replace([]byte("#!/bin/sh\necho " + canary + "; echo " + canary + " >&2; exit 1\n"))
	fails := func() bool { return strings.Contains(s.Log(), "issuer-plugin failed with status 1") }
	for n := 0; !fails() && n < 300; n++ {
		s.Get(i.manifest(), nil).Whole(t, "a pull while the plugin fails", image.Bytes)
		time.Sleep(100 * time.Millisecond)
	}
	if !fails() {
		t.Error("the log does not say that the plugin fails")
	}
	if n := strings.Count(s.Log(), "issuer-plugin failed with status 1"); n > 3 {
		t.Errorf("the log says so %d times", n)
	}
	replace(good)
	s.Eventually("the log says that the plugin works again", func() bool {
		s.Get(i.manifest(), nil)
		return strings.Contains(s.Log(), "logins can be read again")
	})
}
