package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Code is an error code of OCI Distribution 1.1, "Error codes", or one of the few
// that it lacks.
type Code string

// The codes of the specification, and below them those that sidemirror adds.
const (
	BlobUnknown     Code = "BLOB_UNKNOWN"
	DigestInvalid   Code = "DIGEST_INVALID"
	ManifestInvalid Code = "MANIFEST_INVALID"
	ManifestUnknown Code = "MANIFEST_UNKNOWN"
	NameInvalid     Code = "NAME_INVALID"
	NameUnknown     Code = "NAME_UNKNOWN"
	Unauthorized    Code = "UNAUTHORIZED"
	Denied          Code = "DENIED"
	Unsupported     Code = "UNSUPPORTED"
	TooManyRequests Code = "TOOMANYREQUESTS"

	BadRequest      Code = "BAD_REQUEST"      // no registry client sends such a request
	NotFound        Code = "NOT_FOUND"        // the path is not one of the API
	RegistryUnknown Code = "REGISTRY_UNKNOWN" // sent as NAME_UNKNOWN
	Unavailable     Code = "UNAVAILABLE"      // the upstream cannot be reached or fails
	Untrusted       Code = "UNTRUSTED"        // the upstream leads where sidemirror does not follow
)

var statuses = map[Code]int{
	BlobUnknown:     http.StatusNotFound,
	DigestInvalid:   http.StatusBadRequest,
	ManifestInvalid: http.StatusBadRequest,
	ManifestUnknown: http.StatusNotFound,
	NameInvalid:     http.StatusBadRequest,
	NameUnknown:     http.StatusNotFound,
	Unauthorized:    http.StatusUnauthorized,
	Denied:          http.StatusForbidden,
	Unsupported:     http.StatusMethodNotAllowed,
	TooManyRequests: http.StatusTooManyRequests,
	BadRequest:      http.StatusBadRequest,
	NotFound:        http.StatusNotFound,
	RegistryUnknown: http.StatusNotFound,
	Unavailable:     http.StatusBadGateway,
	Untrusted:       http.StatusBadGateway,
}

// Error is an error of the registry protocol. [errors.Is] compares codes.
type Error struct {
	Code    Code
	Status  int    // 0: the code's own
	Message string // for the person who reads the engine's output
	Detail  any    // sent with the message, if not nil
	Err     error  // the cause; for the log, never sent

	// Passed are the errors of an upstream, if there are any. They are sent in place of
	// Code, Message and Detail.
	Passed []Item

	// Routes, if not nil, is sent as the member "routes" of the body: what is
	// served, for a client that asked for something else.
	Routes any

	// Upstream is the status of the upstream's response that caused the error, if any.
	// It is not sent.
	Upstream int

	Challenge  string        // for Unauthorized: the WWW-Authenticate, if any
	Allow      string        // for Unsupported: the methods that are served
	RetryAfter time.Duration // for TooManyRequests: 0 if unknown
}

func (e *Error) Error() string { return strings.ToLower(string(e.Code)) + ": " + e.Text() }

// Text returns the message and the cause, without the code. It leaves out a cause with which the message
// ends.
func (e *Error) Text() string {
	if e.Err == nil || strings.HasSuffix(e.Message, e.Err.Error()) {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// HTTPStatus returns the status to answer with.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	if s, ok := statuses[e.Code]; ok {
		return s
	}
	return http.StatusBadGateway
}

// Away reports whether err says that an upstream could not answer: it is out of reach,
// fails (5xx), or asked to wait (429). A refusal, a 404, and an upstream that may not be
// trusted are answers.
func Away(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == TooManyRequests || e.Code == Unavailable && (e.Upstream == 0 || e.Upstream >= 500))
}

// AsError returns err as an *Error: itself if it is or wraps one, and otherwise
// Unavailable with a message that reveals nothing of the cause.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Unavailable, Message: "the upstream could not be reached", Err: err}
}

// WriteError writes err as the specification's error body. It also closes the
// connection of a client that sent what no registry client sends.
func WriteError(w http.ResponseWriter, err error) {
	e := AsError(err)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if e.Code == BadRequest {
		h.Set("Connection", "close")
	}
	if e.Challenge != "" {
		h.Set("WWW-Authenticate", e.Challenge)
	}
	if e.Allow != "" {
		h.Set("Allow", e.Allow)
	}
	if e.RetryAfter > 0 && e.HTTPStatus() == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	body := e.body()
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.HTTPStatus())
	_, _ = w.Write(body)
}

func (e *Error) body() []byte {
	body, err := json.Marshal(struct {
		Errors []Item `json:"errors"`
		Routes any    `json:"routes,omitempty"`
	}{e.items(), e.Routes})
	if err != nil { // a Detail or Routes that cannot be marshalled is a mistake in sidemirror
		body = []byte(`{"errors":[{"code":"UNKNOWN","message":"the error could not be written"}]}`)
	}
	return append(body, '\n')
}

// items returns the errors to send.
func (e *Error) items() []Item {
	if len(e.Passed) > 0 {
		return e.Passed
	}
	item := Item{Code: string(e.Code), Message: e.Message}
	if e.Code == RegistryUnknown {
		item.Code = string(NameUnknown)
	}
	if e.Detail != nil {
		if detail, err := json.Marshal(e.Detail); err == nil {
			item.Detail = detail
		}
	}
	return []Item{item}
}

func malformed(format string, args ...any) error {
	return &Error{Code: BadRequest, Message: fmt.Sprintf(format, args...)}
}

// quote quotes what a client sent, shortened for a message.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}
