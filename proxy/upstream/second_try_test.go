package upstream

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// breaking is a registry that breaks the first connections before it responds.
func breaking(t *testing.T, http2 bool, first int32) (server *httptest.Server, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= first {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "content")
	}))
	if http2 {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, asked
}

func TestARequestWhoseConnectionBreaksBeforeTheResponseIsSentAgain(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			t.Run(name+" "+method, func(t *testing.T) {
				server, asked := breaking(t, http2, 1)
				req, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := sendTwice(server.Client().Transport, req, 0)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if n := asked.Load(); resp.StatusCode != http.StatusOK || n != 2 {
					t.Errorf("status %d after %d requests", resp.StatusCode, n)
				}
			})
		}
	}
}

func TestARequestIsSentAgainOnceAtMost(t *testing.T) {
	server, asked := breaking(t, true, 10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := sendTwice(server.Client().Transport, req, 0); err == nil {
		_ = resp.Body.Close()
		t.Error("it has a response")
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestARequestThatCouldDoSomethingTwiceIsSentOnce(t *testing.T) {
	server, asked := breaking(t, true, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := sendTwice(server.Client().Transport, req, 0); err == nil {
		_ = resp.Body.Close()
		t.Error("it has a response")
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
}
