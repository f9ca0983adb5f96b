package admin

import (
	"time"

	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/state"
)

// Status is what the daemon knows of itself. It has no secret.
type Status struct {
	Version       string           `json:"version"`
	Started       time.Time        `json:"started"`
	Addresses     []string         `json:"addresses"` // where it listens
	Configuration Configuration    `json:"configuration"`
	Cache         *Cache           `json:"cache,omitempty"` // nil: nothing is stored
	Problems      []health.Problem `json:"problems"`

	Logins   []state.Login   `json:"logins,omitempty"`          // that registries have accepted
	Outbound *state.Outbound `json:"outbound,omitempty"`        // the forward proxy in use
	Guests   []string        `json:"guests,omitempty"`          // the addresses at which guests are served
	Site     *state.Site     `json:"site,omitempty"`            // the mirror on a domain of its own; nil: there is none
	Refused  []state.Refused `json:"refused_callers,omitempty"` // callers that were not trusted lately
}

// Configuration is the configuration in force.
type Configuration struct {
	File       string   `json:"file"`
	InForce    bool     `json:"in_force"`           // it is what is on disk
	Reason     string   `json:"reason,omitempty"`   // why it is not
	Refusing   bool     `json:"refusing,omitempty"` // there is none, and every request is refused
	Registries []string `json:"registries"`         // that it names, "*" among them
}

// Cache is the cache in force.
type Cache struct {
	Dir     string `json:"dir"`
	Bytes   *int64 `json:"bytes,omitempty"` // that are stored; nil if they have not been counted yet
	MaxSize int64  `json:"max_size"`
}
