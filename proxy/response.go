package proxy

import (
	"io"
	"net/http"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
)

// response is a ResponseWriter that records what has been sent, for the access line.
type response struct {
	http.ResponseWriter
	line   accessLine
	memory *access.Allowance // held until the response is out

	values [8]string // of the header, see setHeader
	used   int       // of values

	failure error // of the last copy of a file
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	return &response{ResponseWriter: w, line: accessLine{http: r, started: time.Now()}}
}

// begun reports whether the header is out.
func (w *response) begun() bool { return w.line.status != 0 }

// WriteHeader implements [http.ResponseWriter].
func (w *response) WriteHeader(status int) {
	if w.line.status == 0 {
		w.line.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer].
func (w *response) Write(b []byte) (int, error) {
	if w.line.status == 0 {
		w.line.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	if w.line.http.Method != http.MethodHead { // to that, net/http sends no body
		w.line.bytes += int64(n)
	}
	return n, err
}

// ReadFrom implements [io.ReaderFrom], through which net/http uses sendfile.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if w.line.status == 0 {
		w.line.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.line.bytes += n
	w.failure = err
	return n, err
}

// Unwrap serves [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// lateHeader sends a response's header with its first bytes. Until then an error can still be
// reported.
type lateHeader struct {
	*response
	status int
}

// Write implements [io.Writer].
func (l lateHeader) Write(b []byte) (int, error) {
	l.begin()
	return l.response.Write(b)
}

// ReadFrom implements [io.ReaderFrom].
func (l lateHeader) ReadFrom(r io.Reader) (int64, error) {
	l.begin()
	return l.response.ReadFrom(r)
}

func (l lateHeader) begin() {
	if !l.begun() {
		l.WriteHeader(l.status)
	}
}

// setHeader sets a header whose name is in its canonical form already, which [http.Header.Set] would
// work out for each response. The first values need no memory of their own.
func (w *response) setHeader(name, value string) {
	if w.used == len(w.values) {
		w.Header()[name] = []string{value}
		return
	}
	w.values[w.used] = value
	w.used++
	w.Header()[name] = w.values[w.used-1 : w.used : w.used]
}
