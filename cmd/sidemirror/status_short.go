package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig"
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

// configured says which engines pull through us, and in how many files that is said.
func (s *status) configured() string {
	pending := make(map[string]bool)
	for _, name := range s.Pending {
		pending[name] = true
	}
	var engines []string
	present, pulling, prepared := false, make(map[string]bool), make(map[string]bool)
	for _, e := range s.Engines {
		present = present || e.Present
		whole := len(e.Files) > 0 && !inactive(e)
		for _, name := range e.Files {
			if pending[name] || s.refuses(name) {
				whole = false
			} else {
				prepared[name] = true
			}
		}
		if !whole {
			continue
		}
		engines = append(engines, engineName(e))
		for _, name := range e.Files {
			pulling[name] = true
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
	if s.Proxy != nil {
		for _, problem := range s.Proxy.Problems {
			text := problem.Text
			if problem.Hint != "" {
				text += ": " + problem.Hint
			}
			list = append(list, text)
		}
	}
	for _, e := range s.Engines {
		if inactive(e) {
			list = append(list, engineName(e)+": "+restartFor(e))
		}
	}
	for _, signal := range s.Signals {
		if verb, engine, ok := strings.Cut(signal, " "); ok && len(s.Pending) == 0 {
			list = append(list, engine+": needs a "+verb+": sidemirror apply")
		}
	}
	if n := len(s.Pending); n > 0 {
		list = append(list, several(n, "file")+" still to be changed: sidemirror apply")
	}
	if n := len(s.Refused); n > 0 {
		list = append(list, several(n, "file")+" cannot be changed, and why: sidemirror status")
	}
	return list
}

// inactive says whether an engine's files do not have the effect that they are to have.
func inactive(e hostconfig.State) bool { return strings.Contains(e.Mirror, "inactive") }

// restartFor is the mend that the notes of an inactive engine name.
func restartFor(e hostconfig.State) string {
	for _, mend := range []string{"sidemirror apply --restart-containerd", "systemctl restart containerd"} {
		for _, note := range e.Notes {
			if strings.Contains(note, mend) {
				return "needs a restart for Kubernetes (CRI): " + mend
			}
		}
	}
	return "does not use it for Kubernetes (CRI), and why: sidemirror status"
}

func engineName(e hostconfig.State) string {
	if e.Home != "" {
		return e.Engine + " of " + e.Home
	}
	return e.Engine
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
