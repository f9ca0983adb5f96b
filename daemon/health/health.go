// Package health is the registry of what is wrong with the running daemon. "sidemirror status", the
// page, the metrics and the log show the problems that it lists, so that they never disagree.
package health

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Severity says how bad a kind of problem is.
type Severity int

// The severities, the worst last.
const (
	Note    Severity = iota // worth knowing, and not wrong
	Warning                 // pulls may be slow or refused, and the cause is not on this host
	Error                   // something on this host must be repaired
)

var severityNames = [...]string{"note", "warning", "error"}

// String returns "note", "warning" or "error".
func (s Severity) String() string { return severityNames[s] }

// MarshalText implements [encoding.TextMarshaler].
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Severity) UnmarshalText(text []byte) error {
	i := slices.Index(severityNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("severity %q is unknown", text)
	}
	*s = Severity(i)
	return nil
}

// Kind is a kind of problem. [Kinds] lists them.
type Kind struct {
	Code     problem.Code
	Title    string // in a few words, without a subject: "an upstream cannot be reached"
	Severity Severity

	// DependsOn are the codes of what explains such a problem. It is not shown while one of those
	// is.
	DependsOn []problem.Code

	// Visible is how long such a problem must last before it is shown. Most are at once.
	Visible time.Duration

	// Logged says that its source logs such a problem in detail, so that the registry does not.
	Logged bool
}

// Problem is a problem that is shown.
type Problem struct {
	*problem.Problem
	Title    string
	Severity Severity
	Since    time.Time
}

// shown is a Problem as JSON: a superset of that of a [problem.Problem].
type shown struct {
	Title    string    `json:"title"`
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
}

// MarshalJSON returns the keys of a [problem.Problem] and title, severity and since.
func (p Problem) MarshalJSON() ([]byte, error) {
	own, err := json.Marshal(p.Problem)
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(shown{p.Title, p.Severity, p.Since})
	if err != nil {
		return nil, err
	}
	return slices.Concat(own[:len(own)-1], []byte(","), more[1:]), nil
}

// UnmarshalJSON reads what MarshalJSON has written.
func (p *Problem) UnmarshalJSON(data []byte) error {
	var more shown
	if err := json.Unmarshal(data, &more); err != nil {
		return err
	}
	p.Title, p.Severity, p.Since = more.Title, more.Severity, more.Since
	p.Problem = new(problem.Problem)
	return json.Unmarshal(data, p.Problem)
}

// Registry has the present problems. It is safe for concurrent use.
type Registry struct {
	log func(p Problem, over bool) // may be nil

	mu      sync.Mutex
	sources map[string][]*entry
}

// entry is a problem that a source has reported.
type entry struct {
	Problem
	kind    Kind
	visible bool // it was shown at the last look
}

// New returns a Registry without problems. It calls log, if that is not nil, when a problem becomes
// visible, and when one that was is over. It leaves out those that their source logs.
func New(log func(p Problem, over bool)) *Registry {
	return &Registry{log: log, sources: map[string][]*entry{}}
}

// Set replaces the problems that source has reported. A problem that it reported before, with the
// same code, path and text, is as old as it was.
func (r *Registry) Set(source string, now time.Time, problems ...*problem.Problem) {
	r.mu.Lock()
	before := r.sources[source]
	var present []*entry
	for _, p := range problems {
		if slices.ContainsFunc(present, func(e *entry) bool { return e.is(p) }) {
			continue
		}
		i := slices.IndexFunc(before, func(e *entry) bool { return e.is(p) })
		if i >= 0 {
			e := before[i]
			e.Problem.Problem = p // the hint may be another
			present, before = append(present, e), slices.Delete(slices.Clone(before), i, i+1)
			continue
		}
		kind := kindOf(p.Code)
		present = append(present, &entry{kind: kind, Problem: Problem{
			Problem: p, Title: kind.Title, Severity: kind.Severity, Since: now.UTC().Truncate(time.Second),
		}})
	}
	r.sources[source] = present
	over := logged(before, func(e *entry) bool { return e.visible })
	r.mu.Unlock()
	r.say(over, true)
}

func (e *entry) is(p *problem.Problem) bool {
	return e.Code == p.Code && e.Path == p.Path && e.Line == p.Line && e.Error() == p.Error()
}

// logged returns the problems of entries that the registry logs.
func logged(entries []*entry, which func(*entry) bool) (list []Problem) {
	for _, e := range entries {
		if which(e) && !e.kind.Logged {
			list = append(list, e.Problem)
		}
	}
	return list
}

func (r *Registry) say(list []Problem, over bool) {
	for _, p := range list {
		if r.log != nil {
			r.log(p, over)
		}
	}
}

// Problems returns the problems that are shown at that time: the worst first, and of those the one
// that began first.
func (r *Registry) Problems(now time.Time) []Problem {
	r.mu.Lock()
	var all, fresh []*entry
	codes := map[problem.Code]bool{}
	for _, list := range r.sources {
		all = append(all, list...)
		for _, e := range list {
			codes[e.Code] = true
		}
	}
	list := []Problem{}
	for _, e := range all {
		was := e.visible
		e.visible = now.Sub(e.Since) >= e.kind.Visible && !slices.ContainsFunc(e.kind.DependsOn, func(code problem.Code) bool { return codes[code] })
		if e.visible {
			list = append(list, e.Problem)
		}
		if e.visible && !was {
			fresh = append(fresh, e)
		}
	}
	begun := logged(fresh, func(*entry) bool { return true })
	r.mu.Unlock()
	r.say(begun, false)
	slices.SortFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), a.Since.Compare(b.Since), cmp.Compare(a.Code, b.Code), strings.Compare(a.Error(), b.Error()))
	})
	return list
}
