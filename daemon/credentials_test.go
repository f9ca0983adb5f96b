package daemon

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func TestFaultOfACredentialFileIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"auths":{"r.test":{"auth":"dTpwYXNzd29yZA=="}}}`)
	var b bytes.Buffer
	log := logrus.New()
	log.SetOutput(&b)
	source := watchFaults(&credential.File{Path: path}, log, 0)
	ask := func() {
		t.Helper()
		if got, err := source.Lookup(context.Background(), "r.test", ""); err != nil || got.Username != "u" {
			t.Errorf("%v, %v", got, err)
		}
	}
	ask()
	if b.Len() > 0 {
		t.Errorf("said without trouble: %s", &b)
	}
	write(`{"auths":{"r.test":{"au`)
	ask() // the last good content serves on
	ask()
	if n := strings.Count(b.String(), "those read last stay in use"); n != 1 || !strings.Contains(b.String(), path) || strings.Contains(b.String(), "again") {
		t.Errorf("said %d times: %s", n, &b)
	}
	write(`{"auths":{"r.test":{"auth":"dTpvdGhlcg=="}}}`)
	ask()
	if !strings.Contains(b.String(), "can be read again") {
		t.Errorf("the repair is not logged: %s", &b)
	}
}
