package proxy

import (
	"net/http"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// For an untrusted caller an error says what happened, and not which upstreams there are: their
// addresses are the administrator's business.
var untrustedMessages = map[oci.Code]string{
	oci.Unavailable:     "the registry cannot be asked at the moment",
	oci.TooManyRequests: "the registry asks for fewer requests",
	oci.Untrusted:       "the registry's answer cannot be used; the log of sidemirror says why",
	oci.Unauthorized:    "the registry requires a login",
	oci.Denied:          "the registry denies access",
	oci.ManifestUnknown: "the registry does not have this manifest",
	oci.BlobUnknown:     "the registry does not have this blob",
	oci.NameUnknown:     "the registry does not have this repository",
}

// disclosed returns the part of an error that an untrusted caller may see.
func disclosed(e oci.Error) oci.Error {
	e.Routes, e.Detail = nil, nil
	switch status := e.HTTPStatus(); {
	case e.Upstream == 0 && status < http.StatusInternalServerError && e.Code != oci.Unauthorized && e.Code != oci.TooManyRequests:
		return e // about the request itself
	default:
		e.Message = "the registry's answer was not what was asked for"
		if m, ok := untrustedMessages[e.Code]; ok {
			e.Message = m
		}
	}
	return e
}

// busy returns the error for an untrusted caller whose response would take too much memory.
func busy(err error) error {
	return &oci.Error{Code: oci.Unavailable, Status: http.StatusServiceUnavailable, Message: "too many responses to untrusted callers are under way", Err: err}
}
