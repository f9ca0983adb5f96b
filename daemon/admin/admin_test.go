package admin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon diagnoses by a function.
type daemon func(ctx context.Context, registry string) ([]Diagnosis, error)

func (d daemon) Diagnose(ctx context.Context, registry string) ([]Diagnosis, error) {
	return d(ctx, registry)
}

func serve(t *testing.T, folder string, d daemon) Client {
	t.Helper()
	s, err := Serve(folder, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return Client{filepath.Join(folder, name)}
}

func TestADiagnosisComesAsItWasMade(t *testing.T) {
	want := []Diagnosis{{Upstream: "https://registry.example:5000", Steps: []Step{
		{Name: "connection", Text: "connected to 192.0.2.1:5000"},
		{Name: "certificate", Problem: &problem.Problem{Code: "upstream-ca-unknown", Text: "x <y>", Hint: "z"}},
	}}}
	c := serve(t, t.TempDir(), func(_ context.Context, registry string) ([]Diagnosis, error) {
		if registry != "registry.example:5000" {
			return nil, errors.New("registry " + registry + " is not configured")
		}
		return want, nil
	})
	got, err := c.Diagnose(t.Context(), "registry.example:5000")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = c.Diagnose(t.Context(), "other/../x")
	if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != "registry-unknown" || !strings.Contains(p.Text, "other/../x") {
		t.Errorf("%v", err)
	}
	var into struct{}
	if err := c.get(t.Context(), "/v2/", &into); err == nil || problem.Hint(err) == "" {
		t.Errorf("a path that does not exist: %v", err)
	}
}

func TestTheSocketIsForRootAndTheGroup(t *testing.T) {
	folder := t.TempDir()
	// A process that was killed leaves its socket behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, name)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	s, err := Serve(folder, daemon(nil))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(folder, name))
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	s.Close()
	if _, err := os.Stat(filepath.Join(folder, name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := (Client{filepath.Join(folder, name)}).Diagnose(t.Context(), "x"); err == nil {
		t.Error("a closed server answers")
	}
}

func TestOnlyAFewRegistriesAreExaminedAtATime(t *testing.T) {
	begun, release := make(chan struct{}, maxDiagnoses), make(chan struct{})
	c := serve(t, t.TempDir(), func(context.Context, string) ([]Diagnosis, error) {
		begun <- struct{}{}
		<-release
		return nil, nil
	})
	var wait sync.WaitGroup
	for range maxDiagnoses {
		wait.Go(func() {
			if _, err := c.Diagnose(t.Context(), "r.example"); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxDiagnoses {
		<-begun
	}
	_, err := c.Diagnose(t.Context(), "r.example")
	if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != "busy" {
		t.Errorf("one more: %v", err)
	}
	close(release)
	wait.Wait()
}
