package upstream

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// brokenSoon is how soon a connection must break for the request to be sent again. A server that
// breaks off later would cost an engine that time twice.
const brokenSoon = time.Second

// sendTwice sends req, and once more if a connection was made and broke before a response: a client
// that has the image's manifest from sidemirror may have no other place to ask.
func sendTwice(t http.RoundTripper, req *http.Request, limit time.Duration) (*http.Response, error) {
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	began := time.Now()
	resp, err := awaitHeader(t, req.WithContext(httptrace.WithClientTrace(req.Context(), trace)), limit)
	_, late := errors.AsType[lateError](err)
	again := err != nil && !late && connected.Load() && time.Since(began) < brokenSoon && req.Context().Err() == nil &&
		(req.Body == nil || req.Body == http.NoBody) && (req.Method == http.MethodGet || req.Method == http.MethodHead)
	if !again {
		return resp, err
	}
	return awaitHeader(t, req, limit)
}
