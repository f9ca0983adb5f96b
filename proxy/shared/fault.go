package shared

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// The codes of what can be wrong with a store.
const (
	codeUnreachable  problem.Code = "shared-store-unreachable"
	codeRefused      problem.Code = "shared-store-refused"
	codeNoBucket     problem.Code = "shared-store-no-bucket"
	codeClock        problem.Code = "shared-store-clock"
	codeWrongContent problem.Code = "shared-store-wrong-content"
	codeSlow         problem.Code = "shared-store-slow"
	codeFull         problem.Code = "shared-store-full"
	codeReadOnly     problem.Code = "shared-store-read-only"
	codeNoRanges     problem.Code = "shared-store-no-ranges"
	codeNoConditions problem.Code = "shared-store-no-conditional-write"
)

var hints = map[problem.Code]string{
	codeUnreachable:  "pulls go on without it; check that it runs, and the endpoint in cache.shared.url",
	codeRefused:      "check the keys that cache.shared.credentials names, and the policy of the bucket",
	codeNoBucket:     "create the bucket, or correct cache.shared.url",
	codeClock:        "set the clock of this host, or of the store: timedatectl",
	codeWrongContent: "pulls are not affected; look for errors of the store's disks, and for who else may write there",
	codeSlow:         "pulls go on without it",
	codeFull:         "make room, or let a lifecycle rule of the bucket remove old objects",
	codeReadOnly:     "allow s3:PutObject in the policy of the bucket, or set cache.shared.upload = false",
}

// examined are the problems of which "cache shared check" tells more.
var examined = []problem.Code{codeUnreachable, codeRefused, codeSlow}

// fault is something that is wrong with a store.
type fault struct {
	code        problem.Code
	text        string // what it does, after its name
	hint        string // "" for that of the code
	tripsAtOnce bool   // asking again would not help
}

// errNoResponse says that the header of a response did not come in time.
var errNoResponse = errors.New("no response came in time")

// maxText bounds what a store can put into a log line, in bytes.
const maxText = 200

// describe returns a fault for people.
func (s *Store) describe(f *fault) *problem.Problem {
	return &problem.Problem{
		Code: f.code, Text: "the shared store, bucket " + s.config.Bucket + " at " + s.config.Endpoint.Host + ", " + f.text,
		Hint: cmp.Or(f.hint, hints[f.code]),
	}
}

// report returns a fault for people who have not run "cache shared check".
func (s *Store) report(f *fault) *problem.Problem {
	p := s.describe(f)
	if slices.Contains(examined, f.code) {
		p.Hint += "; to find out more: sidemirror cache shared check"
	}
	return p
}

// faultOf says what an error means.
func (s *Store) faultOf(err error) *fault {
	var response minio.ErrorResponse
	var dial *net.OpError
	switch {
	case errors.Is(err, errCredentials):
		return &fault{code: codeRefused, text: "is not asked: " + clip(err.Error()), hint: s.config.credentialsHint(err), tripsAtOnce: true}
	case errors.Is(err, errNoResponse) || errors.Is(err, context.DeadlineExceeded):
		return &fault{code: codeUnreachable, text: "does not respond", tripsAtOnce: true}
	case errors.As(err, &response):
		return faultOfResponse(response)
	case errors.As(err, &dial) && dial.Op == "dial":
		return &fault{code: codeUnreachable, text: "cannot be reached: " + clip(reason(err)), tripsAtOnce: true}
	}
	return &fault{code: codeUnreachable, text: "fails: " + clip(reason(err))}
}

// faultOfResponse says what an error that a store has sent means.
func faultOfResponse(r minio.ErrorResponse) *fault {
	says := "(" + clip(r.Code) + ", status " + http.StatusText(r.StatusCode) + ")"
	switch {
	case r.Code == "RequestTimeTooSkewed" || r.Code == "RequestExpired":
		return &fault{code: codeClock, text: "refuses requests, because its clock and this host's differ", tripsAtOnce: true}
	case r.Code == minio.NoSuchBucket:
		return &fault{code: codeNoBucket, text: "does not exist", tripsAtOnce: true}
	case isFull(r):
		return &fault{code: codeFull, text: "has no room " + says}
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden || r.Code == "ExpiredToken" || r.Code == "InvalidToken" || r.Code == "InvalidAccessKeyId":
		return &fault{code: codeRefused, text: "refuses the credentials " + says, tripsAtOnce: true}
	}
	return &fault{code: codeUnreachable, text: "fails " + says}
}

// isFull reports whether a store says that it has no room.
func isFull(r minio.ErrorResponse) bool {
	return r.StatusCode == http.StatusInsufficientStorage ||
		slices.Contains([]string{"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "EntityTooLarge"}, r.Code)
}

// isMissing reports whether err says that there is no such object. A store that a policy keeps from
// listing says AccessDenied instead, which "cache shared check" explains.
func isMissing(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && (r.Code == minio.NoSuchKey || r.Code == "NotFound" && r.StatusCode == http.StatusNotFound)
}

// isPresent reports whether err says that a conditional write found an object, or met another write.
func isPresent(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && (r.Code == minio.PreconditionFailed || r.StatusCode == http.StatusPreconditionFailed || r.StatusCode == http.StatusConflict)
}

// lacksConditions reports whether err says that the store knows no conditional writes.
func lacksConditions(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && (r.StatusCode == http.StatusNotImplemented || r.Code == "NotImplemented")
}

// reason returns the last part of an error: what comes before is the URL.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// clip bounds a text, and removes line breaks from it.
func clip(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
