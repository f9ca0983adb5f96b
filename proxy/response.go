package proxy

import (
	"io"
	"math"
	"net/http"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// response is a ResponseWriter that records what has been sent, for the access line.
type response struct {
	http.ResponseWriter
	line   accessLine
	memory *access.Allowance // held until the response is out

	values [8]string // of the header, see setHeader
	used   int       // of values

	failure error // of the last copy of a file

	download *observe.Download // nil: the body is not reported while it is sent
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
		if w.download != nil {
			w.download.Add(int64(n))
		}
	}
	return n, err
}

// ReadFrom implements [io.ReaderFrom], through which net/http uses sendfile.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if w.line.status == 0 {
		w.line.status = http.StatusOK
	}
	n, err := w.copy(r)
	w.line.bytes += n
	w.failure = err
	return n, err
}

// copyStep is after how many bytes it is reported how much of a body was sent.
const copyStep = 4 << 20

// copy sends r. If the body is reported while it is sent, it does so in steps: how much of one step was
// sent is not known before its end.
func (w *response) copy(r io.Reader) (sent int64, err error) {
	if w.download == nil {
		return io.Copy(w.ResponseWriter, r)
	}
	all, ok := r.(*io.LimitedReader)
	if !ok {
		all = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	for all.N > 0 {
		// net/http uses sendfile for a file behind one LimitedReader, and not behind two.
		step := io.LimitedReader{R: all.R, N: min(all.N, copyStep)}
		size := step.N
		n, err := io.Copy(w.ResponseWriter, &step)
		sent, all.N = sent+n, all.N-n
		w.download.Add(n)
		if err != nil || n < size {
			return sent, err
		}
	}
	return sent, nil
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
