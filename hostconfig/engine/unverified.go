package engine

import (
	"fmt"
	"slices"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// LeaveUnverified makes each engine that does not verify a registry pull from it directly if another
// engine, which pulls from it through sidemirror too, does verify it. sidemirror has one way to a
// registry for all engines: what one engine does not verify must not reach one that would refuse it.
func LeaveUnverified(plans []*Plan) {
	type leaving struct {
		plan     *Plan
		adopted  Adopted
		verifier *Plan
	}
	var all []leaving
	for _, p := range plans {
		for _, a := range p.State.Adopted {
			if !a.SkipVerify && !a.PlainHTTP {
				continue
			}
			if v := verifier(plans, p, a); v != nil {
				all = append(all, leaving{p, a, v})
			}
		}
	}
	for _, l := range all {
		l.plan.leave(l.adopted, l.verifier)
	}
}

// verifier returns the plan of another engine that is given sidemirror for a registry and does not
// reach it as a does; nil if there is none.
func verifier(plans []*Plan, p *Plan, a Adopted) *Plan {
	for _, other := range plans {
		if other != p && other.sends(a.Registry) && !other.reaches(a) {
			return other
		}
	}
	return nil
}

// sends reports whether pulls from a registry go to sidemirror by the plan. They may by that of an engine
// whose files stay as they are.
func (p *Plan) sends(registry string) bool {
	if p.Hold != nil {
		return true
	}
	return slices.ContainsFunc(p.Edits, func(e Edit) bool {
		return slices.Contains(e.Registries, registry) || e.Others && !slices.Contains(p.Apart, registry)
	})
}

// reaches reports whether the engine itself reaches the registry as a does, or with less care.
func (p *Plan) reaches(a Adopted) bool {
	return slices.Contains(p.Unverified, a.Registry) || slices.ContainsFunc(p.State.Adopted, func(own Adopted) bool {
		return own.Registry == a.Registry && own.SkipVerify == a.SkipVerify && own.PlainHTTP == a.PlainHTTP
	})
}

// leave leaves a registry to the engine, and notes why.
func (p *Plan) leave(a Adopted, verifier *Plan) {
	p.Edits = slices.DeleteFunc(p.Edits, func(e Edit) bool { return slices.Equal(e.Registries, []string{a.Registry}) })
	p.State.Adopted = slices.DeleteFunc(p.State.Adopted, func(own Adopted) bool { return own.Registry == a.Registry })
	if slices.Contains(p.Skipped, a.Registry) {
		return // another folder of the engine's says the same
	}
	p.Skipped = append(p.Skipped, a.Registry)
	how := "without verifying its certificate"
	if a.PlainHTTP {
		how = "by plain HTTP"
	}
	p.State.Note(problem.Problem{
		Code: "registry-verified-by-another", Path: a.From,
		Text: fmt.Sprintf("makes %s reach %s %s, which %s does not: %[1]s pulls from it directly", p.State.Title(), a.Registry, how, verifier.State.Title()),
		Hint: fmt.Sprintf("make both verify it with its CA, or give %s the same setting if you trust the network", verifier.State.Title()),
	})
}
