package web

import (
	"slices"
	"strings"
)

// tone is how good a piece of news is. The page shows it by a sign and a colour.
type tone string

const (
	good    tone = "good"
	unsure  tone = "unsure"
	warning tone = "warning"
	bad     tone = "bad"
)

// verdict answers the first question of a reader: do this host's engines pull through sidemirror?
type verdict struct {
	Tone     tone
	Sentence string
	Advice   string // empty if there is nothing to do
	Command  string // that Advice ends in; may be empty
}

// judge returns the verdict on l in the words of a language.
func judge(l Live, w words) verdict {
	by := map[Through][]string{}
	for _, e := range l.Engines {
		through := e.Through
		name := w.engine(e)
		if e.HubOnly && through == Yes {
			name = w.say("hub only", name)
		}
		by[through] = append(by[through], name)
	}
	const status, apply = "sudo sidemirror status", "sudo sidemirror apply"
	severe := slices.ContainsFunc(l.Problems, func(p Problem) bool { return p.Severe })
	v := verdict{Tone: good}
	switch through, past := by[Yes], slices.Concat(by[No], by[Unknown]); {
	case !l.Watched && !l.LastPull.IsZero():
		v = verdict{good, w.say("engines pull"), "", ""}
	case !l.Watched:
		v = verdict{unsure, w.say("not known"), w.say("ask status"), status}
	case len(l.Engines) == 0:
		v = verdict{unsure, w.say("no engine"), w.say("install one"), ""}
	case len(by[Partly]) > 0:
		v = verdict{warning, w.say("partly", w.list(by[Partly])), w.say("ask status"), status}
	case len(past) == 0:
		v.Sentence = w.sayOf("through", through)
	case len(through) > 0:
		v = verdict{warning, w.sayOf("past", past) + w.say("space") + w.sayOf("through", through), w.say("configure them"), apply}
	default:
		v = verdict{bad, w.say("none"), w.say("configure them"), apply}
	}
	if severe && (v.Tone == good || v.Tone == unsure) {
		v.Tone, v.Advice, v.Command = warning, w.say("see problems"), ""
	}
	return v
}

// engine returns the engine's name as its own makers write it.
func (w words) engine(e Engine) string {
	name, ok := map[string]string{"docker": "Docker", "crio": "CRI-O", "cri-o": "CRI-O", "buildkit": "BuildKit"}[e.Name]
	if !ok {
		name = e.Name
	}
	if e.Home != "" {
		return w.say("engine of", name, e.Home)
	}
	return name
}

// sayOf returns the sentence of that key about one or several names.
func (w words) sayOf(key string, names []string) string {
	if len(names) > 1 {
		key += ", all"
	}
	return w.say(key, w.list(names))
}

// list joins names as the language does: "a, b and c".
func (w words) list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], w.say("comma")) + w.say("and") + names[last]
}
