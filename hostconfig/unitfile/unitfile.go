// Package unitfile reads how systemd starts a service: the command line of its unit, drop-ins and
// environment included (systemd.unit(5), systemd.service(5), systemd.exec(5)).
package unitfile

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// folders are where systemd looks for units; the first one that has a file wins.
var folders = []string{
	"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// Service is how a unit is started.
type Service struct {
	// Args is the command line, the program first, with variables replaced by their values. A
	// variable whose value cannot be known stays as it is written: see [Unresolved].
	Args []string

	// Environment is what the unit sets, by name. It may be less than the process gets.
	Environment map[string]string
}

// Unresolved reports whether a word of a command line depends on a variable or on a specifier that
// could not be replaced by its value.
func Unresolved(word string) bool { return strings.ContainsAny(word, "$%") }

// Read reads a service unit of a host. A unit that does not exist has no arguments. The error is
// for files of the unit that exist and cannot be read.
func Read(h *hostfs.Host, unit string) (Service, error) {
	names, err := files(h, unit)
	if err != nil {
		return Service{}, err
	}
	var exec string
	var environment, environmentFiles, unset []string
	for _, name := range names {
		f, err := h.ReadTrusted(name)
		if err != nil {
			return Service{}, err
		}
		for _, s := range settings(f.Data) {
			switch s.key {
			case "ExecStart":
				exec = s.value
			case "Environment":
				environment = accumulate(environment, s.value)
			case "EnvironmentFile":
				environmentFiles = accumulate(environmentFiles, s.value)
			case "UnsetEnvironment":
				unset = accumulate(unset, s.value)
			}
		}
	}
	s := Service{Environment: make(map[string]string)}
	for _, text := range environment {
		for _, word := range split(text) {
			if name, value, ok := strings.Cut(word, "="); ok {
				s.Environment[name] = strings.ReplaceAll(value, "%%", "%") // other specifiers stay
			}
		}
	}
	whole := true
	for _, name := range environmentFiles {
		read, all := ReadEnvironment(h, name)
		maps.Copy(s.Environment, read)
		whole = whole && all
	}
	for _, text := range unset {
		Unset(s.Environment, split(text)...)
	}
	s.Args = s.command(exec, whole)
	return s, nil
}

// accumulate adds to a list setting, which an empty value resets.
func accumulate(list []string, value string) []string {
	if value == "" {
		return nil
	}
	return append(list, value)
}

// files returns the unit's file and its drop-ins in the order in which they count. Of two drop-ins
// of one name the one in the first folder counts alone.
func files(h *hostfs.Host, unit string) ([]string, error) {
	var main string
	dropIns := make(map[string]string)
	for _, folder := range folders {
		name := path.Join(folder, unit)
		if main == "" && h.IsFile(name) {
			main = name
		}
		list, err := h.Names(name + ".d")
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			at := path.Join(name+".d", item.Name())
			if _, known := dropIns[item.Name()]; !known && strings.HasSuffix(at, ".conf") && h.IsFile(at) {
				dropIns[item.Name()] = at
			}
		}
	}
	if main == "" {
		return nil, nil
	}
	names := []string{main}
	var sorted []string
	for name := range dropIns {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		names = append(names, dropIns[name])
	}
	return names, nil
}

// ReadEnvironment returns the variables of an EnvironmentFile=, which may be a pattern, with "-" before
// it if the file may be missing. It reports false if systemd may find values there that are not known
// here.
func ReadEnvironment(h *hostfs.Host, file string) (variables map[string]string, whole bool) {
	variables, whole = make(map[string]string), true
	name, optional := strings.CutPrefix(file, "-")
	if !path.IsAbs(name) || Unresolved(name) {
		return variables, false
	}
	names := []string{name}
	if strings.ContainsAny(name, "*?[") {
		var err error
		if names, err = h.Glob(name); err != nil {
			return variables, false
		}
	}
	for _, name := range names {
		f, err := h.ReadTrusted(name)
		if err != nil || !f.Exists() && !optional {
			whole = false
			continue
		}
		for _, line := range logicalLines(f.Data, "#;") {
			if name, value, ok := strings.Cut(line, "="); ok {
				variables[strings.TrimSpace(name)] = strings.Join(split(value), " ")
			}
		}
	}
	return variables, whole
}

// Unset takes out of an environment what UnsetEnvironment= lists: names, and assignments, which only
// count if the value is that one.
func Unset(environment map[string]string, list ...string) {
	for _, item := range list {
		name, value, assignment := strings.Cut(item, "=")
		if !assignment || environment[name] == value {
			delete(environment, name)
		}
	}
}

// command splits ExecStart= and replaces variables: "${X}" by its value, the word "$X" by the words
// of its value. If not all of the environment is known, a variable that has no value stays.
func (s *Service) command(exec string, whole bool) []string {
	exec = strings.TrimLeft(exec, "@-:+!|")
	var args []string
	for _, word := range split(exec) {
		if name, ok := strings.CutPrefix(word, "$"); ok && isName(name) {
			if value, known := s.lookup(name, whole); known {
				args = append(args, split(value)...)
				continue
			}
		}
		args = append(args, s.expand(word, whole))
	}
	return args
}

// expand replaces each "${X}" in a word.
func (s *Service) expand(word string, whole bool) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(word, "${")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := s.lookup(name, whole)
		if !closed || !isName(name) || !known {
			out.WriteString("${" + rest)
			return out.String()
		}
		out.WriteString(value)
		word = after
	}
}

// lookup returns a variable's value. systemd takes an unset one for empty.
func (s *Service) lookup(name string, whole bool) (string, bool) {
	value, set := s.Environment[name]
	return value, (set || whole) && !Unresolved(value)
}

func isName(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// Words returns the words of one variable of a file such as /etc/default/docker, none if the file or
// the variable does not exist.
func Words(h *hostfs.Host, file, variable string) ([]string, error) {
	f, err := h.ReadTrusted(file)
	if err != nil {
		return nil, err
	}
	for _, line := range logicalLines(f.Data, "#") {
		if name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok && strings.TrimSpace(name) == variable {
			return split(strings.Join(split(value), " ")), nil
		}
	}
	return nil, nil
}
