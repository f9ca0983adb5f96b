package shared

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// startFaulty starts a store with a proxy in front of it, which makes its faults.
func startFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{}
	behind := startFake(t)
	pass := httputil.NewSingleHostReverseProxy(mustParse(t, behind.url))
	pass.ErrorLog = quiet
	server := httptest.NewUnstartedServer(f.serve(pass))
	server.Config.ErrorLog = quiet
	server.Start()
	t.Cleanup(server.Close)
	f.store = behind.at(server.URL)
	return f
}

// isBlob reports whether a request is for the content of a blob.
func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// refuse sends an error as S3 does.
func refuse(status int, code string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
	}
}

// changed lets a request for a blob pass, and changes the response's body.
func changed(change func(w http.ResponseWriter, body []byte)) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !isBlob(r) {
			pass.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		pass.ServeHTTP(rec, r)
		if rec.Code/100 != 2 {
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		for key, values := range rec.Header() {
			w.Header()[key] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		change(w, rec.Body.Bytes())
	}
}

// hang does not respond until the client leaves, which shows when its body is read.
func hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// cut breaks the connection.
func cut(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func TestPullsAreAsWithoutTheStoreWhateverIsWrongWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		code  string // of the problem that is reported
	}{
		"resets connections":       {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { cut(w) }, "shared-store-unreachable"},
		"responds never":           {hang, "shared-store-unreachable"},
		"fails":                    {refuse(http.StatusInternalServerError, "InternalError"), "shared-store-unreachable"},
		"asks for fewer requests":  {refuse(http.StatusServiceUnavailable, "SlowDown"), "shared-store-unreachable"},
		"refuses the keys":         {refuse(http.StatusForbidden, "InvalidAccessKeyId"), "shared-store-refused"},
		"says the keys are over":   {refuse(http.StatusBadRequest, "ExpiredToken"), "shared-store-refused"},
		"has another clock":        {refuse(http.StatusForbidden, "RequestTimeTooSkewed"), "shared-store-clock"},
		"has no bucket":            {refuse(http.StatusNotFound, "NoSuchBucket"), "shared-store-no-bucket"},
		"sends a page":             {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { fmt.Fprint(w, "<html>a portal</html>") }, "shared-store-"},
		"sends one wrong byte":     {changed(func(w http.ResponseWriter, b []byte) { b[len(b)/2] ^= 1; _, _ = w.Write(b) }), "shared-store-wrong-content"},
		"sends wrong last bytes":   {changed(func(w http.ResponseWriter, b []byte) { b[len(b)-1] ^= 1; _, _ = w.Write(b) }), "shared-store-wrong-content"},
		"breaks off in the middle": {changed(func(w http.ResponseWriter, b []byte) { _, _ = w.Write(b[:len(b)/2]); cut(w) }), "shared-store-unreachable"},
		"stops in the middle": {changed(func(w http.ResponseWriter, b []byte) {
			_, _ = w.Write(b[:len(b)/2])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Second)
		}), "shared-store-slow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFaulty(t)
			var blobs []blob
			for i := range 4 {
				b := newBlob(fmt.Sprint(name, i), large/4)
				f.put(b, b.Bytes)
				blobs = append(blobs, b)
			}
			u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: blobs})
			h := watchedHost(t, u.URL(), f.store)
			f.set(c.fault)
			for _, b := range blobs { // one failure alone may be chance
				pull(t, h.Sidemirror, b)
			}
			h.reports(c.code)
		})
	}
}

// asked counts the requests for the content of some blobs.
type asked struct {
	mu    sync.Mutex
	paths []string
}

func (a *asked) add(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paths = append(a.paths, r.Method+" "+r.URL.Path)
}

func (a *asked) of(b blob) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, p := range a.paths {
		if strings.HasSuffix(p, b.object()) {
			n++
		}
	}
	return n
}

func TestAStoreThatFailsIsLeftAloneAndIsAskedAgainWhenItServes(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"resets connections": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { cut(w) },
		"hangs":              hang,
		"fails":              refuse(http.StatusInternalServerError, "InternalError"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, a := startFaulty(t), &asked{}
			var blobs []blob
			for i := range 650 { // more than are asked for
				b := newBlob(fmt.Sprint(name, i), 512)
				f.put(b, b.Bytes)
				blobs = append(blobs, b)
			}
			u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: blobs})
			h := watchedHost(t, u.URL(), f.store)
			f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				a.add(r)
				fault(w, r, pass)
			})
			next := func() blob {
				b := blobs[0]
				blobs = blobs[1:]
				pull(t, h.Sidemirror, b)
				return b
			}
			eventually(t, "the store is left alone", func() bool {
				next()
				return h.shows("sidemirror_shared_store_asked 0")
			})
			for range 5 {
				if b := next(); a.of(b) != 0 {
					t.Errorf("a store that %s is asked %d times for a blob", name, a.of(b))
				}
			}
			f.set(nil)
			eventually(t, "the store is asked again", func() bool {
				next()
				return h.shows("sidemirror_shared_store_asked 1")
			})
		})
	}
}

func TestAStoreThatIsFullServesWhatItHas(t *testing.T) {
	for code, status := range map[string]int{"XMinioStorageFull": http.StatusInsufficientStorage, "AccessDenied": http.StatusForbidden} {
		t.Run(code, func(t *testing.T) {
			f := startFaulty(t)
			in, out := newBlob("in", large), newBlob("out", large)
			f.put(in, in.Bytes)
			u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {in, out}})
			h := watchedHost(t, u.URL(), f.store)
			f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if r.Method == http.MethodGet || r.Method == http.MethodHead {
					pass.ServeHTTP(w, r)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				refuse(status, code)(w, r, pass)
			})
			pull(t, h.Sidemirror, out)
			want := map[string]string{"XMinioStorageFull": "shared-store-full", "AccessDenied": "shared-store-read-only"}[code]
			h.reports(want)
			u.hold()
			pull(t, h.Sidemirror, in)
		})
	}
}

func TestAWrongObjectIsReplacedByTheHostThatHasTheRightOne(t *testing.T) {
	s := startFake(t)
	b := newBlob("replaced", large)
	wrong := bytes.Clone(b.Bytes)
	wrong[5] ^= 1
	s.put(b, wrong)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {b}})
	h := host(t, u.URL(), s)
	pull(t, h, b)
	if log := h.Log(); !strings.Contains(log, "cache=fill") {
		t.Errorf("the blob was not stored:\n%s", log)
	}
	eventually(t, "the object is replaced", func() bool { return bytes.Equal(s.content(b), b.Bytes) })
}

func TestTheSecretKeyIsNeverLogged(t *testing.T) {
	s := startMinIO(t)
	b := newBlob("secret", large)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {b}})
	wrong := "a-wrong-key-that-must-not-show"
	h := watchedHost(t, u.URL(), s, func(o *harness.Options) { o.Env, o.Secrets = environment(wrong), []string{wrong} })
	pull(t, h.Sidemirror, b)
	h.reports("shared-store-refused")
	h.CheckSecrets("the log", h.Log())
}
