package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon diagnoses by a function.
type daemon func(ctx context.Context, registry string) ([]Diagnosis, error)

func (d daemon) Diagnose(ctx context.Context, registry string) ([]Diagnosis, error) {
	return d(ctx, registry)
}

func (d daemon) Status(now time.Time) Status {
	return Status{Version: "1.2.3", Started: now.UTC(), Problems: []health.Problem{{
		Problem: &problem.Problem{Code: "login-refused", Text: "x", Hint: "y"}, Title: "a login was refused", Severity: health.Error, Since: now.UTC(),
	}}}
}

func (d daemon) Activity(now time.Time) activity.Activity {
	return activity.Activity{Pulls: []activity.Pull{{Image: "docker.io/library/alpine:3.20", Outcome: activity.Stored, Started: now.UTC()}}}
}

func (d daemon) Ready() string {
	if d == nil {
		return "no-configuration"
	}
	return ""
}

func metrics(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a_metric 1\n") }

func serve(t *testing.T, folder string, d daemon) Client {
	t.Helper()
	s, err := Serve(folder, d, http.HandlerFunc(metrics))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return Client{Socket: filepath.Join(folder, name)}
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
	if err != nil || asJSON(t, got) != asJSON(t, want) {
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
	s, err := Serve(folder, daemon(nil), http.HandlerFunc(metrics))
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
	if _, err := (Client{Socket: filepath.Join(folder, name)}).Diagnose(t.Context(), "x"); err == nil {
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

func TestStatusAndActivityComeAsTheyAre(t *testing.T) {
	c := serve(t, t.TempDir(), func(context.Context, string) ([]Diagnosis, error) { return nil, nil })
	s, err := c.Status(t.Context())
	if err != nil || s.Version != "1.2.3" || len(s.Problems) != 1 || s.Problems[0].Hint != "y" || s.Problems[0].Severity != health.Error {
		t.Errorf("%+v, %v", s, err)
	}
	a, err := c.Activity(t.Context())
	if err != nil || len(a.Pulls) != 1 || a.Pulls[0].Outcome != activity.Stored {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestWhatOtherHostsMayAskForTellsNoImages(t *testing.T) {
	for name, test := range map[string]struct {
		d      daemon
		path   string
		status int
		body   string
	}{
		"alive":             {nil, "/healthz", 200, "ok\n"},
		"not ready":         {nil, "/readyz", 503, "no-configuration\n"},
		"ready":             {func(context.Context, string) ([]Diagnosis, error) { return nil, nil }, "/readyz", 200, "ok\n"},
		"metrics":           {nil, "/metrics", 200, "a_metric 1\n"},
		"the status":        {nil, "/v1/status", 404, ""},
		"the activity":      {nil, "/v1/activity", 404, ""},
		"a diagnosis":       {nil, "/v1/registries/docker.io/diagnosis", 404, ""},
		"nothing in itself": {nil, "/", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Public(test.d, http.HandlerFunc(metrics)).ServeHTTP(w, httptest.NewRequest("GET", test.path, nil))
			if w.Code != test.status || test.body != "" && w.Body.String() != test.body {
				t.Errorf("%d %q", w.Code, w.Body)
			}
		})
	}
	w := httptest.NewRecorder()
	Public(daemon(nil), http.HandlerFunc(metrics)).ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
