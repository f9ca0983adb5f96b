package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	var whole, partly []string
	present, pulling, prepared := false, make(map[string]bool), make(map[string]bool)
	for _, e := range s.Engines {
		present = present || e.Present
		switch e.Mirror {
		case engine.Active:
			whole = append(whole, e.Title())
		case engine.Partial:
			partly = append(partly, e.Title())
		case engine.Inactive, engine.Unknown:
		}
		through := e.Mirror == engine.Active || e.Mirror == engine.Partial
		for _, file := range e.Files {
			if file.State == engine.InPlace {
				prepared[file.Path] = true
			}
			if file.State == engine.InPlace && through {
				pulling[file.Path] = true
			}
		}
	}
	var parts []string
	if len(whole) > 0 {
		parts = append(parts, pulls(whole)+" through sidemirror")
	}
	if len(partly) > 0 {
		parts = append(parts, pulls(partly)+" only partly through sidemirror")
	}
	switch {
	case !present:
		return "no container engine is on this host; sidemirror configures one that is installed later"
	case len(parts) > 0:
		return strings.Join(parts, "; ") + " (" + several(len(pulling), "file") + ")"
	case len(prepared) == 0:
		return "no container engine pulls through sidemirror yet"
	}
	return "no container engine pulls through sidemirror yet; " + several(len(prepared), "file") + " prepared"
}

// pulls is a subject and its verb: "docker pulls", "docker and containerd pull".
func pulls(engines []string) string {
	last := len(engines) - 1
	if last == 0 {
		return engines[0] + " pulls"
	}
	return strings.Join(engines[:last], ", ") + " and " + engines[last] + " pull"
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
