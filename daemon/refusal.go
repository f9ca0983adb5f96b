package daemon

import (
	"context"
	"net/http"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// refusal is the service without a configuration. It refuses every request at once, so that
// engines fall back to the registry.
type refusal struct{}

// ServeHTTP implements [http.Handler].
func (refusal) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Connection", "close")
	oci.WriteError(w, &oci.Error{
		Code:    oci.Unavailable,
		Status:  http.StatusServiceUnavailable,
		Message: "sidemirror has no configuration that can be used; see \"sidemirror config check\" on its host",
	})
}

// Probe implements [service]. There is nothing to probe.
func (refusal) Probe(context.Context) {}

// Close implements [service].
func (refusal) Close() {}
