package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// writeShort prints at most three lines for a person who has just installed a package: what is
// configured, the worst problem with its hint, and how to undo it.
func (s *status) writeShort(w io.Writer, undo string) error {
	p := newPrinter(w)
	p.printf("sidemirror: %s\n", printable(s.configured()))
	if problems := s.problems(); len(problems) > 0 {
		worst := problems[0]
		text := worst.Error()
		if worst.engine != "" {
			text = worst.engine + ": " + text
		}
		if worst.Hint != "" {
			text += "; hint: " + worst.Hint
		}
		if more := len(problems) - 1; more > 0 {
			text += fmt.Sprintf(" (%d more: sidemirror status)", more)
		}
		p.paint(red, "sidemirror: "+printable(text))
	}
	p.printf("sidemirror: to undo it: %s\n", undo)
	return p.err
}

// configured says which engines pull through sidemirror, and how many files make them.
func (s *status) configured() string {
	var whole, hubOnly, partly []string
	present, pulling, prepared := false, make(map[string]bool), make(map[string]bool)
	for _, e := range s.Engines {
		present = present || e.Present
		through := e.Mirror == engine.Active || e.Mirror == engine.Partial
		title := e.Title()
		if e.Stopped {
			title += " (stopped)"
		}
		switch {
		case through && e.HubOnly && len(e.Problems) == 0:
			hubOnly = append(hubOnly, title)
		case e.Mirror == engine.Active:
			whole = append(whole, title)
		case e.Mirror == engine.Partial:
			partly = append(partly, title)
		}
		for _, file := range e.Files {
			if file.State == engine.InPlace {
				prepared[file.Path] = true
			}
			if file.State == engine.InPlace && through {
				pulling[file.Path] = true
			}
		}
	}
	switch through := slices.Concat(whole, hubOnly, partly); {
	case s.unused:
		return "no configuration can be used, so engines use the registries directly"
	case !present:
		return "no container engine is on this host; sidemirror configures one that is installed later"
	case len(through) > 0 && s.Proxy != nil && !s.Proxy.Answers:
		return list(through) + verb(through, " is", " are") + " set up to pull through sidemirror, which does not serve (" + several(len(pulling), "file") + ")"
	case len(through) > 0:
		text := pulls(whole, hubOnly, partly) + " (" + several(len(pulling), "file") + ")"
		if len(hubOnly) > 0 {
			text += "; " + engine.OtherRegistries(s.mirror)
		}
		return text
	case len(prepared) == 0:
		return "no container engine pulls through sidemirror yet"
	}
	return "no container engine pulls through sidemirror yet; " + several(len(prepared), "file") + " prepared"
}

// pulls says which engines pull through sidemirror as a whole, which can do so from Docker Hub only,
// and which do so only partly.
func pulls(whole, hubOnly, partly []string) string {
	var parts []string
	add := func(engines []string, text string) {
		if len(engines) > 0 {
			parts = append(parts, list(engines)+verb(engines, " pulls ", " pull ")+text)
		}
	}
	add(whole, "through sidemirror")
	add(partly, "only partly through sidemirror")
	add(hubOnly, "through sidemirror from Docker Hub only")
	return strings.Join(parts, "; ")
}

// list is "docker", "docker and containerd" or "docker, containerd and containerd of k3s".
func list(engines []string) string {
	last := len(engines) - 1
	if last == 0 {
		return engines[0]
	}
	return strings.Join(engines[:last], ", ") + " and " + engines[last]
}

// verb is the form of a verb that goes with a number of subjects.
func verb(subjects []string, one, many string) string {
	if len(subjects) == 1 {
		return one
	}
	return many
}

// undoing returns the command that removes sidemirror from this host: that of the package manager, if
// it is installed as a package.
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
