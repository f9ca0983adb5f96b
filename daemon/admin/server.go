package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	// requestLimit bounds the reading of a request, replyLimit the work for it.
	requestLimit = 5 * time.Second
	replyLimit   = 2 * time.Minute

	// maxDiagnoses bounds the diagnoses at a time: each makes connections to a registry.
	maxDiagnoses = 4
)

// Daemon is what the API tells of.
type Daemon interface {
	// Diagnose examines the upstreams of a registry. The error is for a registry that is not known.
	Diagnose(ctx context.Context, registry string) ([]Diagnosis, error)

	// Status returns what the daemon knows of itself.
	Status(now time.Time) Status

	// Activity returns what the proxy did lately.
	Activity(now time.Time) activity.Activity

	// Ready returns why the daemon cannot serve pulls, as the code of a problem; "" if it can.
	Ready() string
}

// Server serves the API on a socket in a folder of the daemon's.
type Server struct {
	http     *http.Server
	listener net.Listener
	served   sync.WaitGroup
}

// Serve begins to serve the API and the metrics in folder. A socket that an earlier process left there
// is replaced. Root, this process's user and the members of its group may use it.
func Serve(folder string, d Daemon, metrics http.Handler) (*Server, error) {
	path := filepath.Join(folder, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, err
	}
	s := &Server{listener: l, http: &http.Server{
		Handler: handler(d, metrics), ReadTimeout: requestLimit, WriteTimeout: replyLimit, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0),
	}}
	s.served.Go(func() { _ = s.http.Serve(checkedListener{l, admitted}) }) // ends with Close
	return s, nil
}

// Close ends the requests under way and removes the socket.
func (s *Server) Close() {
	_ = s.http.Close()
	s.served.Wait()
}

// Public returns what other hosts may ask for too: /metrics, /healthz and /readyz.
func Public(d Daemon, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	addPublic(mux, d, metrics)
	return mux
}

func addPublic(mux *http.ServeMux, d Daemon, metrics http.Handler) {
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { replyText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := d.Ready(); why != "" {
			replyText(w, http.StatusServiceUnavailable, why)
			return
		}
		replyText(w, http.StatusOK, "ok")
	})
}

func replyText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func handler(d Daemon, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	addPublic(mux, d, metrics)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, d.Status(time.Now()))
	})
	mux.HandleFunc("GET /v1/activity", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, d.Activity(time.Now()))
	})
	slots := make(chan struct{}, maxDiagnoses)
	mux.HandleFunc("GET /v1/registries/{name}/diagnosis", func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			reply(w, http.StatusTooManyRequests, failure{&problem.Problem{Code: "busy", Text: "registries are examined already", Hint: "try again in a minute"}})
			return
		}
		found, err := d.Diagnose(r.Context(), r.PathValue("name"))
		if err != nil {
			reply(w, http.StatusNotFound, failure{problem.Coded(err, "registry-unknown")})
			return
		}
		reply(w, http.StatusOK, diagnoses{found})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusNotFound, failure{&problem.Problem{Code: "not-found", Text: "the admin API has no such path", Hint: "see docs/admin-api.md"}})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if that fails
}
