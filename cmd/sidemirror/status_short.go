package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// writeShort says in three lines what somebody who has just installed a package
// wants to know: what is configured, the worst that is amiss with its mend, and how to
// undo it.
func (s *status) writeShort(w io.Writer, undo string) error {
	p := &printer{w: w, color: colored(w)}
	p.printf("sidemirror: %s\n", printable(s.configured()))
	if amiss := s.amiss(); len(amiss) > 0 {
		text := amiss[0]
		if more := len(amiss) - 1; more > 0 {
			text += fmt.Sprintf(" (and %d more: sidemirror status)", more)
		}
		p.paint(red, "sidemirror: "+printable(text))
	}
	p.printf("sidemirror: to undo it: %s\n", undo)
	return p.err
}

// configured says which engines pull through sidemirror, and how many files make them.
func (s *status) configured() string {
	var engines []string
	present, pulling, prepared := false, make(map[string]bool), make(map[string]bool)
	for _, e := range s.Engines {
		present = present || e.Present
		through := e.Mirror == engine.Active || e.Mirror == engine.Partial
		if through {
			engines = append(engines, e.Title())
		}
		for _, file := range e.Files {
			if file.State == engine.InPlace {
				prepared[file.Path] = true
				pulling[file.Path] = pulling[file.Path] || through
			}
		}
	}
	for name, counts := range pulling {
		if !counts {
			delete(pulling, name)
		}
	}
	files := several(len(pulling), "file")
	switch last := len(engines) - 1; {
	case !present:
		return "no container engine is on this host; one that comes later is configured by itself"
	case last < 0 && len(prepared) == 0:
		return "no container engine pulls through sidemirror yet"
	case last < 0:
		return "no container engine pulls through sidemirror yet; " + several(len(prepared), "file") + " prepared for it"
	case last == 0:
		return engines[0] + " pulls through sidemirror (" + files + ")"
	default:
		return strings.Join(engines[:last], ", ") + " and " + engines[last] + " pull through sidemirror (" + files + ")"
	}
}

// amiss is what is to be mended, the worst first, each with its mend.
func (s *status) amiss() []string {
	var list []string
	add := func(prefix string, what *problem.Problem) {
		text := prefix + what.Error()
		if what.Hint != "" {
			text += ": " + what.Hint
		}
		list = append(list, text)
	}
	if s.Proxy != nil {
		for _, what := range s.Proxy.Problems {
			add("", what)
		}
	}
	for _, e := range s.Engines {
		for _, what := range e.Problems {
			add(e.Title()+": ", what)
		}
	}
	for _, signal := range s.Signals {
		if len(s.Pending) == 0 {
			list = append(list, fmt.Sprintf("%s needs a %s: sidemirror apply", signal.Engine, signal.Verb))
		}
	}
	if n := len(s.Pending); n > 0 {
		list = append(list, several(n, "file")+" still to be changed: sidemirror apply")
	}
	for _, what := range s.Refused {
		if !slices.ContainsFunc(s.Engines, func(e engine.State) bool { return slices.Contains(e.Problems, what) }) {
			list = append(list, what.Error())
		}
	}
	return list
}

// undoing is how to be rid of us: by removing the package, where there is one.
func undoing(root string) string {
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	switch {
	case exists("var/lib/dpkg/info/sidemirror.list"):
		return "apt remove sidemirror"
	case exists("usr/local/lib/systemd/system/sidemirror-hosts.service"):
		return "make uninstall"
	case !exists("usr/bin/sidemirror"):
	case exists("usr/bin/dnf"):
		return "dnf remove sidemirror"
	case exists("usr/bin/zypper"):
		return "zypper remove sidemirror"
	case exists("usr/bin/rpm"):
		return "rpm --erase sidemirror"
	}
	if root != "/" {
		return "sidemirror revert --root " + root
	}
	return "sidemirror revert"
}
