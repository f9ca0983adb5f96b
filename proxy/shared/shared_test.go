package shared

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func digestOf(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }

func TestKeysAreReadFromAFileOfAWS(t *testing.T) {
	for text, want := range map[string]string{
		"[default]\naws_access_key_id = a\naws_secret_access_key=b==\n":                                                           "a b== ",
		"aws_access_key_id=a\naws_secret_access_key=b\naws_session_token = c":                                                     "a b c",
		"[other]\naws_access_key_id=x\naws_secret_access_key=y\n[ default ]\naws_access_key_id=a\naws_secret_access_key=b":        "a b ",
		"# aws_access_key_id=x\n[default]\r\naws_access_key_id=a\r\naws_secret_access_key=b\r\ncredential_process=/bin/false\r\n": "a b ",
		"":                              "",
		"[default]\naws_access_key_id=": "",
		"[other]\naws_access_key_id=a\naws_secret_access_key=b": "",
		"[default]\naws_access_key_id=a":                        "",
	} {
		k, err := parseKeys([]byte(text))
		got := strings.Join([]string{k.id, k.secret.Reveal(), k.token.Reveal()}, " ")
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", k, k), "b==") {
			t.Error("the keys print themselves")
		}
	}
}

func TestTheFileThatIsConfiguredComesFirst(t *testing.T) {
	dir := t.TempDir()
	write := func(name, id string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("[default]\naws_access_key_id="+id+"\naws_secret_access_key=s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("file", "from-file")
	write(credentialName, "from-systemd")
	for _, c := range []struct {
		file string
		env  map[string]string
		want string
	}{
		{file, map[string]string{"CREDENTIALS_DIRECTORY": dir, "AWS_ACCESS_KEY_ID": "x"}, "from-file"},
		{"", map[string]string{"CREDENTIALS_DIRECTORY": dir, "AWS_ACCESS_KEY_ID": "x"}, "from-systemd"},
	} {
		v, err := Config{Credentials: c.file}.credentials(func(name string) string { return c.env[name] }).GetWithContext(nil)
		if err != nil || v.AccessKeyID != c.want {
			t.Errorf("%q, %v, want %q", v.AccessKeyID, err, c.want)
		}
	}
	_, err := Config{Credentials: filepath.Join(dir, "missing")}.credentials(os.Getenv).GetWithContext(nil)
	if !errors.Is(err, errCredentials) {
		t.Errorf("a file that is missing: %v", err)
	}
	if err := os.WriteFile(file, make([]byte, maxCredentials+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Config{Credentials: file}).credentials(os.Getenv).GetWithContext(nil); !errors.Is(err, errCredentials) {
		t.Errorf("a file that is too long: %v", err)
	}
}

func TestErrorsOfAStoreHaveCodes(t *testing.T) {
	s := &Store{config: Config{Bucket: "b", Endpoint: &url.URL{Scheme: "http", Host: "s3.test"}}}
	for want, errs := range map[problem.Code][]error{
		codeClock:       {minio.ErrorResponse{Code: "RequestTimeTooSkewed", StatusCode: 403}},
		codeNoBucket:    {minio.ErrorResponse{Code: "NoSuchBucket", StatusCode: 404}},
		codeFull:        {minio.ErrorResponse{Code: "XMinioStorageFull", StatusCode: 507}, minio.ErrorResponse{Code: "QuotaExceeded", StatusCode: 403}},
		codeRefused:     {minio.ErrorResponse{Code: "AccessDenied", StatusCode: 403}, minio.ErrorResponse{Code: "ExpiredToken", StatusCode: 400}, errCredentials},
		codeUnreachable: {minio.ErrorResponse{Code: "InternalError", StatusCode: 500}, minio.ErrorResponse{Code: "SlowDown", StatusCode: 503}, errNoResponse, context.DeadlineExceeded, errors.New("broken")},
	} {
		for _, err := range errs {
			f := s.faultOf(err)
			if f.code != want {
				t.Errorf("%v: %s, want %s", err, f.code, want)
			}
			if p := s.describe(f); p.Hint == "" || !strings.Contains(p.Text, "s3.test") {
				t.Errorf("%v: %q, hint %q", err, p.Text, p.Hint)
			}
		}
	}
}

func TestWhatAStoreSaysIsBounded(t *testing.T) {
	s := &Store{}
	f := s.faultOf(minio.ErrorResponse{Code: strings.Repeat("x\n", 5000), StatusCode: 500})
	if len(f.text) > 2*maxText || strings.Contains(f.text, "\n") {
		t.Errorf("a text of %d bytes", len(f.text))
	}
}

// fakeStore answers requests by their method and path. What a real store does is tested in test/shared.
func fakeStore(t *testing.T, queue int64, serve http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Endpoint: at, Bucket: "bucket", Prefix: "p", Region: "us-east-1", Queue: queue})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestAQueueThatIsFullDropsAndNoCallerWaits(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	var put []string
	s := fakeStore(t, 100, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		put = append(put, r.URL.Path)
		w.Header().Set("ETag", `"x"`)
	})
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, make([]byte, 40), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		s.Upload(Upload{
			Digest: digestOf(i), Size: 40,
			Allowed: func(context.Context) bool { <-release; return i != 1 },
			Open:    func() (File, error) { return os.Open(content) },
		})
	}
	close(release)
	for s.Stats().Uploaded+s.Stats().Private+s.Stats().Dropped < 10 {
		if err := context.Cause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stats := s.Stats()
	// Two are being uploaded at once, and two of 40 bytes fit into a queue of 100.
	if stats.Dropped < 6 || stats.Uploaded < 1 || stats.Private > 1 {
		t.Errorf("%+v", stats)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.ContainsFunc(put, func(path string) bool { return strings.Contains(path, digestOf(1).Encoded()) }) {
		t.Error("what may not leave this host was uploaded")
	}
}

func TestARangeThatWasNotAskedForIsAFault(t *testing.T) {
	s := fakeStore(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 5-9/100")
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 07:00:00 GMT")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "12345")
	})
	for _, r := range [][2]int64{{0, 5}, {6, 10}, {4, -1}} {
		if _, err := s.Open(t.Context(), digestOf(1), r[0], r[1]); err == nil {
			t.Errorf("bytes 5 to 9 answer %v", r)
		}
	}
	if s.breaker.fault() == nil {
		t.Error("three such responses do not open the breaker")
	}
}

func TestAStoreThatMayNotBeAskedIsNotAsked(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	s := fakeStore(t, 1, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code></Error>")
	})
	for range 5 {
		if _, err := s.Open(t.Context(), digestOf(1), 0, -1); err == nil {
			t.Fatal("a refusal is a success")
		}
		if s.Ready() || s.Claim(t.Context(), digestOf(1), claimTimeout) {
			t.Error("a store that refuses is asked again")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked != 1 {
		t.Errorf("the store was asked %d times", asked)
	}
	if p := s.Problems(); len(p) != 1 || p[0].Code != codeRefused {
		t.Errorf("problems %v", p)
	}
}

func TestClaimsThatBringNothingDelayPullsLessAndLessOften(t *testing.T) {
	start := time.Unix(1e9, 0)
	var c claims
	now := start
	wait := func(useful bool) {
		began := now
		now = now.Add(5 * time.Second)
		c.waited(began, now, useful)
	}
	wait(false)
	c.waited(start, now.Add(time.Second), false) // at the same time
	if c.paused(now) {
		t.Fatal("one wait in vain, or several at the same time, end the waiting")
	}
	for _, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		if wait(false); !c.paused(now) || !c.paused(now.Add(pause-time.Second)) {
			t.Errorf("hosts wait again before %v are over", pause)
		}
		if now = now.Add(pause); c.paused(now) {
			t.Errorf("hosts do not wait after %v", pause)
		}
	}
	wait(true)
	if wait(false); c.paused(now) {
		t.Error("after a wait that was of use, one in vain ends the waiting")
	}
	if wait(false); c.paused(now.Add(shortestClaimPause)) {
		t.Error("after a wait that was of use, the pause is not short again")
	}
}

// The store's clock is its own, but it cannot be before what the store has made.
func TestAClaimFromTheFutureCountsForNothing(t *testing.T) {
	s := fakeStore(t, 1<<20, func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		w.Header().Set("Last-Modified", now.Add(time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Length", "1")
		fmt.Fprint(w, "x")
	})
	if live, err := s.claimed(t.Context(), digestOf(1)); live || err != nil {
		t.Errorf("it counts: %v, %v", live, err)
	}
}
