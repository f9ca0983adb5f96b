package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// poolError is the failure of a pool: the last one, and what became of each upstream.
type poolError struct {
	last    error
	from    *Upstream
	failed  map[string]error // by upstream
	without []string         // those that answered 404

	// passed and passedBy are the last failure of an optional upstream, which counts only if no other
	// upstream says anything.
	passed   error
	passedBy *Upstream
}

func (e *poolError) add(u *Upstream, err error) {
	if e.failed == nil {
		e.failed = map[string]error{}
	}
	e.failed[u.Name()] = err
	if u.optional {
		e.passed, e.passedBy = err, u
		return
	}
	e.last, e.from = err, u
}

// whole returns the failure, which is that of an optional upstream if there is no other.
func (e *poolError) whole() *poolError {
	if e.last == nil {
		e.last, e.from = e.passed, e.passedBy
	}
	return e
}

func (e *poolError) Error() string { return e.last.Error() }

func (e *poolError) Unwrap() error { return e.last }

// Away reports whether err says that the upstream of that name could not answer the caller
// that was asking. It says nothing for another caller.
func Away(err error, name string) bool {
	e, ok := errors.AsType[*poolError](err)
	if !ok {
		return oci.Away(err)
	}
	if failed := e.failed[name]; failed != nil {
		return oci.Away(failed)
	}
	return !slices.Contains(e.without, name) // it was not asked
}

// Refusals returns the upstreams that refused the caller that was asking.
func (p Pool) Refusals(err error) []*Upstream {
	e, ok := errors.AsType[*poolError](err)
	if !ok {
		return nil
	}
	var all []*Upstream
	for _, u := range p {
		if code := codeOf(e.failed[u.Name()]); code == oci.Unauthorized || code == oci.Denied {
			all = append(all, u)
		}
	}
	return all
}

func codeOf(err error) oci.Code {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		return e.Code
	}
	return ""
}

// OutOfReach reports whether err says only that an upstream could not be asked.
func OutOfReach(err error) bool {
	return errors.Is(err, &oci.Error{Code: oci.Unavailable})
}

// passedOver returns why the response of an upstream is not the one for the client although another
// upstream may have a better one; nil if it is for the client, or a 404. It reads and closes a
// response that is passed over.
func (u *Upstream) passedOver(resp *http.Response) *oci.Error {
	e := &oci.Error{Upstream: resp.StatusCode, Message: fmt.Sprintf("%s answered %d", u.Host(), resp.StatusCode)}
	switch status := resp.StatusCode; {
	case status >= 500:
		e.Code = oci.Unavailable
	case !u.optional:
		return nil
	case status == http.StatusUnauthorized:
		e.Code = oci.Unauthorized
	case status == http.StatusForbidden:
		e.Code = oci.Denied
	case status/100 == 2 && isPage(resp):
		e.Code, e.Message = oci.Unavailable, u.Host()+" sent a web page"
	default:
		return nil
	}
	e.ReadRefusal(resp)
	return e
}

// isPage reports whether a response is a page for people, as a captive portal or a form to sign in
// sends in the place of content.
func isPage(resp *http.Response) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Type"))), "text/html")
}
