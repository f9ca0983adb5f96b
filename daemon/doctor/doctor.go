// Package doctor follows the chain from each engine of a host to its registries, and names the first
// link of each that is broken.
//
// It does not judge by files alone: it makes each engine pull an image that sidemirror serves itself,
// and removes it again.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// State is what was found out about a link.
type State string

const (
	// Sound is a link that does what it should.
	Sound State = "ok"
	// Broken is a link that does not. What comes after it in its chain was not looked at.
	Broken State = "broken"
	// Skipped is a link that could not be looked at, or that does not matter on this host.
	Skipped State = "skipped"
)

// Link is one thing that a pull needs.
type Link struct {
	Name     string             `json:"name"` // "configuration", "test pull"
	State    State              `json:"state"`
	Text     string             `json:"text,omitempty"` // what was seen
	Problems []*problem.Problem `json:"problems,omitempty"`
}

// MarshalJSON writes the link with an empty list rather than none.
func (l Link) MarshalJSON() ([]byte, error) {
	type plain Link
	l.Problems = append([]*problem.Problem{}, l.Problems...)
	return json.Marshal(struct {
		plain
		Problems []*problem.Problem `json:"problems"`
	}{plain(l), l.Problems})
}

// Chain is what the pulls of one engine, or from one registry, need, in this order.
type Chain struct {
	Kind  string `json:"kind"` // "service", "engine" or "registry"
	Name  string `json:"name"` // "sidemirror", "docker", "ghcr.io"
	Links []Link `json:"links"`
}

// Sound reports whether no link is broken.
func (c Chain) Sound() bool {
	return !slices.ContainsFunc(c.Links, func(l Link) bool { return l.State == Broken })
}

// add appends a link and reports whether the next one is worth a look.
func (c *Chain) add(l Link) bool {
	c.Links = append(c.Links, l)
	return l.State == Sound
}

// check appends a link that is broken by each of the problems, and reports whether there is none. If this
// user may not read what the link is about, nothing is known of it.
func (c *Chain) check(name, text string, problems []*problem.Problem) bool {
	unread := func(p *problem.Problem) bool { return p.Code == "permission-denied" && errors.Is(p, fs.ErrPermission) }
	if len(problems) > 0 && !slices.ContainsFunc(problems, func(p *problem.Problem) bool { return !unread(p) }) {
		return c.add(Link{Name: name, State: Skipped, Text: problems[0].Error() + "; " + problems[0].Hint})
	}
	if len(problems) > 0 {
		return c.add(Link{Name: name, State: Broken, Problems: problems})
	}
	return c.add(Link{Name: name, State: Sound, Text: text})
}

// Examination is what is known of a host before its chains are followed.
type Examination struct {
	// File is the configuration file, Configuration what is wrong with it.
	File          string
	Configuration []*problem.Problem

	// Registries are those of the configuration, as references name them.
	Registries []string

	// Plan says what the engines' files are like. A plan is settled if they are as wanted.
	Plan hostconfig.Plan

	// Proxy is what was found out about the proxy, nil under another root. Reported are those of its
	// problems that the daemon reports itself.
	Proxy    *proxycheck.Report
	Reported []*problem.Problem

	// Unreported is why it is not known what the daemon reports; nil if it is.
	Unreported error

	// Try makes an engine pull an image and remove it. It is nil if no engine may be asked.
	Try func(ctx context.Context, engine, reference string) error

	// Disk says how full the cache and its disk are. It is nil under another root.
	Disk func(ctx context.Context) (string, error)

	// Registry follows the chain to one registry, from inside the daemon. It is nil if the daemon
	// cannot be asked.
	Registry func(ctx context.Context, name string) ([]Link, error)
}

// Examine follows each chain and calls show for it as soon as its end is reached.
func (e *Examination) Examine(ctx context.Context, show func(Chain)) []Chain {
	var chains []Chain
	add := func(c Chain) {
		chains = append(chains, c)
		show(c)
	}
	add(e.service(ctx))
	served := e.Proxy != nil && e.Proxy.Answers
	for _, state := range e.Plan.Engines {
		if state.Present {
			add(e.engine(ctx, state, served))
		}
	}
	if e.Registry != nil && served {
		for _, name := range e.Registries {
			add(e.registry(ctx, name))
		}
	}
	return chains
}

// service looks at sidemirror itself.
func (e *Examination) service(ctx context.Context) Chain {
	c := Chain{Kind: "service", Name: "sidemirror"}
	if note := e.withoutRoot(); note != nil {
		c.add(Link{Name: "rights", State: Skipped, Text: note.Text + "; " + note.Hint})
	}
	c.check("configuration", e.File, e.Configuration)
	if e.Proxy == nil {
		return c
	}
	known := func(p *problem.Problem) bool {
		return slices.Contains(e.Reported, p) || slices.ContainsFunc(e.Configuration, func(q *problem.Problem) bool { return p.Code == q.Code })
	}
	if c.check("service", "responds at "+e.Proxy.Address, slices.DeleteFunc(slices.Clone(e.Proxy.Problems), known)) || e.Proxy.Answers {
		ofDisk := func(p *problem.Problem) bool { return strings.HasPrefix(string(p.Code), "cache-") }
		if e.Unreported != nil {
			c.add(Link{Name: "own report", State: Skipped, Text: unasked(e.Unreported)})
		} else {
			c.check("own report", "the daemon reports no problem", slices.DeleteFunc(slices.Clone(e.Reported), ofDisk))
		}
		e.disk(ctx, &c, slices.DeleteFunc(slices.Clone(e.Reported), func(p *problem.Problem) bool { return !ofDisk(p) }))
	}
	return c
}

// withoutRoot returns the note that the caller is not root, nil if it is or need not be.
func (e *Examination) withoutRoot() *problem.Problem {
	for _, note := range e.Plan.Notes {
		if note.Code == "not-root" {
			return note
		}
	}
	return nil
}

// disk adds what is known of the cache's disk, and what the daemon reports of it.
func (e *Examination) disk(ctx context.Context, c *Chain, problems []*problem.Problem) {
	if len(problems) > 0 {
		c.check("disk", "", problems)
		return
	}
	if e.Disk == nil {
		return
	}
	text, err := e.Disk(ctx)
	if err != nil {
		c.add(Link{Name: "disk", State: Skipped, Text: unasked(err)})
		return
	}
	c.add(Link{Name: "disk", State: Sound, Text: text})
}

// unasked says why the daemon cannot be asked.
func unasked(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "only root and the group sidemirror may ask the daemon; run it as root"
	case errors.Is(err, fs.ErrNotExist):
		return "the daemon cannot be asked: it does not run as a systemd service"
	}
	return "the daemon cannot be asked: " + err.Error()
}

// engine looks at an engine: its files, what it has in force, and then at one of its pulls.
func (e *Examination) engine(ctx context.Context, state engine.State, served bool) Chain {
	c := Chain{Kind: "engine", Name: state.Title()}
	if state.Version != "" {
		c.Name += " " + state.Version
	}
	if !c.check("configuration", e.inForce(state), e.configuration(state)) {
		return c
	}
	switch {
	case state.Stopped:
		c.add(Link{Name: "test pull", State: Skipped, Text: "the engine is stopped"})
	case state.Mirror == engine.Inactive || state.Mirror == "":
		c.add(Link{Name: "test pull", State: Skipped, Text: "its pulls are not meant to go through sidemirror"})
	case e.withoutRoot() != nil:
		c.add(Link{Name: "test pull", State: Skipped, Text: "only root may ask an engine to pull"})
	case !served:
		c.add(Link{Name: "test pull", State: Skipped, Text: "sidemirror does not serve"})
	case e.Try == nil:
		c.add(Link{Name: "test pull", State: Skipped, Text: "this engine cannot be asked to pull from here"})
	default:
		e.pull(ctx, &c, state)
	}
	return c
}

// inForce says what was found in order.
func (e *Examination) inForce(state engine.State) string {
	inPlace := 0
	for _, file := range state.Files {
		if file.State == engine.InPlace {
			inPlace++
		}
	}
	switch {
	case state.Mirror == engine.Inactive && len(state.Notes) > 0:
		return state.Notes[0].Error()
	case state.HubOnly:
		return files(inPlace) + " in place and in force, for Docker Hub only"
	case state.Mirror == engine.Active:
		return files(inPlace) + " in place and in force"
	}
	return files(inPlace) + " in place"
}

// configuration returns what is wrong with the files of an engine or with what it has in force.
func (e *Examination) configuration(state engine.State) []*problem.Problem {
	list := slices.Clone(state.Problems)
	const hint = "sidemirror apply (sidemirror plan shows what it does)"
	var pending []engine.File
	for _, file := range state.Files {
		if file.State == engine.Missing || file.State == engine.Outdated || file.State == engine.Unwanted {
			pending = append(pending, file)
		}
	}
	if len(pending) > 0 {
		text := pendingTexts[pending[0].State]
		if more := len(pending) - 1; more > 0 {
			text += ", and " + files(more) + " more must be changed"
		}
		list = append(list, &problem.Problem{Code: "files-pending", Path: pending[0].Path, Text: text, Hint: hint})
	}
	if len(list) > 0 {
		return list
	}
	for _, signal := range e.Plan.Signals() {
		if signal.Engine == state.Engine {
			list = append(list, &problem.Problem{Code: "signal-pending", Text: "needs a " + string(signal.Verb) + " to take its configuration", Hint: hint})
		}
	}
	return list
}

// pendingTexts say what is wrong with a file.
var pendingTexts = map[engine.FileState]string{
	engine.Missing:  "does not exist and should have sidemirror's entry",
	engine.Outdated: "does not have sidemirror's entry as it should be",
	engine.Unwanted: "has an entry of sidemirror's that should not be there",
}

// registry looks at the way from the daemon to a registry.
func (e *Examination) registry(ctx context.Context, name string) Chain {
	c := Chain{Kind: "registry", Name: name}
	links, err := e.Registry(ctx, name)
	switch {
	case errors.Is(err, context.Canceled):
		c.add(Link{Name: "connection", State: Skipped, Text: "interrupted"})
	case err != nil:
		c.add(Link{Name: "connection", State: Skipped, Text: unasked(err)})
	default:
		c.Links = links
	}
	return c
}
