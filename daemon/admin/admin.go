// Package admin is the HTTP API by which sidemirror's commands ask the running daemon. It is served
// on a Unix socket that only root and the group of the daemon may use. docs/admin-api.md describes
// it.
package admin

import "github.com/sidemirror/sidemirror/internal/problem"

const (
	// Socket is where the service of the packages listens.
	Socket = "/run/sidemirror/" + name

	name = "admin.sock"

	// mode lets the group of the daemon in.
	mode = 0o660

	// maxReply bounds a reply, for the client.
	maxReply = 1 << 20
)

// Diagnosis is what the daemon saw of one upstream of a registry.
type Diagnosis struct {
	Upstream string `json:"upstream"` // its URL
	Steps    []Step `json:"steps"`
}

// Step is one thing that a request to an upstream needs: "host name", "connection", "certificate",
// "clock", "response", "login", "rate limit". The last one is broken if one is.
type Step struct {
	Name    string           `json:"name"`
	Text    string           `json:"text,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

// diagnoses is the reply to GET /v1/registries/{name}/diagnosis.
type diagnoses struct {
	Diagnoses []Diagnosis `json:"diagnoses"`
}

// failure is the body of a reply that is an error.
type failure struct {
	Error *problem.Problem `json:"error"`
}
