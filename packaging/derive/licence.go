package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// linked is a module that is in the binary, or Go's own library.
type linked struct {
	path, version string
	licence       string   // SPDX
	text          string   // of the licence
	copyright     []string // whose it is
	notice        string   // what Apache-2.0 wants to be handed on, if there is any
}

// findLinked asks go list what is in the binary, on any architecture that is built.
func findLinked(ctx context.Context, root string) ([]linked, error) {
	found := map[string]linked{}
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", "./cmd/sidemirror")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("listing what is linked: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			part := strings.Fields(line)
			if len(part) != 3 || found[part[0]].path != "" {
				continue
			}
			l, err := readLicence(part[0], strings.TrimPrefix(part[1], "v"), part[2])
			if err != nil {
				return nil, err
			}
			found[l.path] = l
		}
	}
	if len(found) == 0 {
		return nil, errors.New("go list names no module that is linked")
	}
	std, err := goItself(ctx, root)
	if err != nil {
		return nil, err
	}
	list := []linked{std}
	for _, l := range found {
		list = append(list, l)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].path < list[j].path })
	return list, nil
}

func goItself(ctx context.Context, root string) (linked, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOVERSION")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return linked{}, fmt.Errorf("asking for Go's folder: %w", err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	// Fedora has the licence elsewhere.
	for _, at := range []string{dir, "/usr/share/licenses/golang"} {
		l, err := readLicence("std", strings.TrimPrefix(version, "go"), at)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	return linked{}, fmt.Errorf("no LICENSE of Go's in %s", dir)
}

func readLicence(path, version, dir string) (linked, error) {
	l := linked{path: path, version: version}
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return l, err
		}
		l.text = plain(text)
		break
	}
	if l.text == "" {
		return l, fmt.Errorf("%s: no licence in %s: %w", path, dir, fs.ErrNotExist)
	}
	notice, err := os.ReadFile(filepath.Join(dir, "NOTICE"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	l.notice = plain(notice)
	if l.licence = identify(l.text); l.licence == "" {
		return l, fmt.Errorf("%s: which licence is this? teach identify in packaging/derive/licence.go about it", path)
	}
	l.copyright = holders(l)
	return l, nil
}

// plain takes out what a text file may have and a package's should not.
func plain(text []byte) string {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	lines := strings.Split(strings.Trim(string(text), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t")
	}
	return strings.Join(lines, "\n")
}

// identify tells the licences that are in use here by the words that only they have.
func identify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	has := func(words string) bool { return strings.Contains(text, words) }
	switch {
	case has("Apache License Version 2.0, January 2004"):
		return "Apache-2.0"
	case has("Permission is hereby granted, free of charge, to any person obtaining a copy"):
		return "MIT"
	case has("Redistribution and use in source and binary forms") && has("may be used to endorse or promote products"):
		return "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	}
	return ""
}

// holders are the lines that say whose it is. The text of Apache-2.0 has none but its
// form to fill in.
func holders(l linked) []string {
	text := l.text
	if l.licence == "Apache-2.0" {
		text = l.notice
	}
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "Copyright ")
		if !ok || strings.Contains(line, "notice") {
			continue
		}
		rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(rest, "(c)"), "©"))
		rest = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(rest, "(C)"), "All rights reserved."))
		list = append(list, strings.TrimRight(rest, "."))
	}
	if len(list) == 0 {
		list = append(list, "the authors of "+l.path)
	}
	return list
}

// licences writes what follows from the licences.
func licences(all []linked, at time.Time, out map[string]string) {
	out["copyright"] = debCopyright(all, at)
	out["NOTICES"] = notices(all)
	out["licence"] = expression(all)
	var bundled strings.Builder
	for _, l := range all {
		if l.path != "std" {
			fmt.Fprintf(&bundled, "      - bundled(golang(%s)) = %s\n", l.path, strings.ReplaceAll(l.version, "-", "~"))
		}
	}
	out["bundled.yaml"] = bundled.String()
}

// expression is the licence of the binary, SPDX.
func expression(all []linked) string {
	list := []string{"Apache-2.0"}
	for _, l := range all {
		list = append(list, l.licence)
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), " AND ")
}

// notices are the licences in full, as most of them want to be with the binary.
func notices(all []linked) string {
	var b strings.Builder
	b.WriteString("sidemirror is licensed under the Apache License, Version 2.0; see LICENSE.\n\n")
	b.WriteString("Its binary has in it what follows, each under the licence given with it.\n")
	for _, l := range all {
		name := l.path
		if name == "std" {
			name = "Go's standard library"
		}
		fmt.Fprintf(&b, "\n%s\n\n%s %s (%s)\n\n%s\n", strings.Repeat("=", 78), name, l.version, l.licence, l.text)
		if l.notice != "" {
			fmt.Fprintf(&b, "\nIts NOTICE:\n\n%s\n", l.notice)
		}
	}
	return b.String()
}

// debCopyright returns debian/copyright (DEP-5). There is no Static-Built-Using field: it names
// Debian's source packages, and these modules come from Go's own proxy.
func debCopyright(all []linked, at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sidemirror
Source: https://github.com/sidemirror/sidemirror
Comment: The binary is linked statically. In addition to sidemirror's own files it
 contains those of the Go modules below, in the versions named.

Files: *
Copyright: %d the sidemirror authors
License: Apache-2.0
`, at.Year())
	texts := map[string]string{}
	for _, l := range all {
		fmt.Fprintf(&b, "\nFiles: %s@%s/*\nCopyright: %s\n", l.path, l.version, strings.Join(l.copyright, "\n "))
		if l.licence == "Apache-2.0" {
			b.WriteString("License: Apache-2.0\n")
			if l.notice != "" {
				fmt.Fprintf(&b, "Comment:\n%s\n", folded(l.notice))
			}
			continue
		}
		// Two texts of one licence differ in names and years at least.
		name := l.licence + "-" + strings.Map(func(r rune) rune {
			if r == '/' {
				return '-'
			}
			return r
		}, l.path)
		texts[name] = l.text
		fmt.Fprintf(&b, "License: %s\n", name)
	}
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	sort.Strings(names)
	b.WriteString(`
License: Apache-2.0
 Licensed under the Apache License, Version 2.0 (the "License"); you may not use
 these files except in compliance with the License. On Debian systems its text is
 in /usr/share/common-licenses/Apache-2.0.
`)
	for _, name := range names {
		fmt.Fprintf(&b, "\nLicense: %s\n%s\n", name, folded(texts[name]))
	}
	return b.String()
}

// folded is a text as the value of a field.
func folded(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if lines[i] = " " + line; line == "" {
			lines[i] = " ."
		}
	}
	return strings.Join(lines, "\n")
}
