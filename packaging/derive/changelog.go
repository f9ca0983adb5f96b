package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// release is one "## [VERSION]" of CHANGELOG.md.
type release struct {
	version string
	at      time.Time
	changes []string
}

var (
	releaseLine = regexp.MustCompile(`^## \[([^]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$`)
	changeLine  = regexp.MustCompile(`^- (.*)$`)
)

// readChangelog reads CHANGELOG.md, which is the one source. What is unreleased is in
// the version that is packaged, which is on top even if nothing was written of it.
func readChangelog(name, version string, at time.Time) ([]release, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseChangelog(string(text), version, at)
}

func parseChangelog(text, version string, at time.Time) ([]release, error) {
	list := []release{{version: version, at: at}}
	open := false // a change that may go on in the next line
	for line := range strings.SplitSeq(text, "\n") {
		now := &list[len(list)-1]
		if m := releaseLine.FindStringSubmatch(line); m != nil {
			open = false
			switch {
			case m[1] == "Unreleased", m[1] == version:
			case m[2] == "":
				return nil, fmt.Errorf("CHANGELOG.md: the version %s has no date: write ## [%s] - YYYY-MM-DD", m[1], m[1])
			default:
				day, err := time.Parse(time.DateOnly, m[2])
				if err != nil {
					return nil, fmt.Errorf("CHANGELOG.md: %s: %w", m[1], err)
				}
				list = append(list, release{version: m[1], at: day})
			}
			continue
		}
		if m := changeLine.FindStringSubmatch(line); m != nil {
			now.changes, open = append(now.changes, m[1]), true
		} else if rest := strings.TrimSpace(line); open && rest != "" && strings.HasPrefix(line, "  ") {
			now.changes[len(now.changes)-1] += " " + rest
		} else {
			open = false
		}
	}
	if len(list[0].changes) == 0 {
		list[0].changes = []string{"No change that would be noticed."}
	}
	return list, nil
}

// markup is what a plain text does without.
var markup = regexp.MustCompile("`([^`]*)`")

// wrap breaks a change into lines of at most width bytes, words being what they are.
func wrap(text string, width int) []string {
	text = markup.ReplaceAllString(text, "$1")
	var lines []string
	now := ""
	for word := range strings.FieldsSeq(text) {
		if now != "" && len(now)+1+len(word) > width {
			lines, now = append(lines, now), ""
		}
		now = strings.TrimPrefix(now+" "+word, " ")
	}
	return append(lines, now)
}

// debChangelog is deb-changelog(5).
func debChangelog(all []release) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "sidemirror (%s) unstable; urgency=medium\n\n", r.version)
		for _, change := range r.changes {
			fmt.Fprintf(&b, "  * %s\n", strings.Join(wrap(change, 74), "\n    "))
		}
		fmt.Fprintf(&b, "\n -- %s  %s\n\n", maintainer, r.at.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// rpmChangelog is what nfpm reads for rpm's. The release is nfpm's own, 1.
func rpmChangelog(all []release) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "- semver: %s\n  date: %s\n  packager: %s\n  changes:\n",
			strconv.Quote(r.version+"-1"), r.at.Format(time.RFC3339), strconv.Quote(maintainer))
		for _, change := range r.changes {
			fmt.Fprintf(&b, "    - note: %s\n", strconv.Quote(strings.Join(wrap(change, 76), "\n  ")))
		}
	}
	return b.String()
}
