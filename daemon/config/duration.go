package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// longestDuration limits every duration: a longer one has the wrong unit.
const longestDuration = time.Hour

func parseDuration(text string, check func(string) error) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, noDuration(text, `"500ms", "30s" or "2m"`)
	case d < 0 || d > longestDuration:
		return 0, wrong(quote(text)+" is out of range", fmt.Sprintf("write a duration from 0s to %v", longestDuration))
	case check != nil:
		return d, check(d.String())
	}
	return d, nil
}

// checkNotZero refuses 0s as a time limit: no upstream could be reached in that time.
func checkNotZero(text string) error {
	if text == "0s" {
		return wrong("the duration is 0s", "write more than 0s, or remove the key to have the default")
	}
	return nil
}

// age is how long something is stored. It can be longer than longestDuration.
type age time.Duration

const longestAge = 10 * 365 * 24 * time.Hour

func parseAge(text string) (age, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, noDuration(text, `"30m" or "168h"`)
	case d < 0 || d > longestAge:
		return 0, wrong(quote(text)+" is out of range", fmt.Sprintf("write a duration from 0s to %v", longestAge))
	}
	return age(d), nil
}

// otherDuration is a duration as other programs have it.
var otherDuration = lazyregexp.New(`^([0-9]{1,5}) ?(s|secs?|seconds?|mins?|minutes?|hours?|hrs?|h|d|days?|w|weeks?)?$`)

// noDuration returns the error of a text that is no duration. The hint is the same one in a form that
// counts, if the text shows what was meant.
func noDuration(text, examples string) error {
	text = strings.TrimSpace(text)
	m := otherDuration().FindStringSubmatch(strings.ToLower(text))
	if m == nil {
		return wrong(quote(text)+" is not a duration", "write a number and a unit, as "+examples)
	}
	var n int
	_, _ = fmt.Sscan(m[1], &n) // cannot fail: the form is stricter
	unit := "s"
	switch {
	case m[2] == "":
		return wrong(quote(text)+" has no unit", fmt.Sprintf(`write "%ds" for seconds, or a number and another unit, as %s`, n, examples))
	case strings.HasPrefix(m[2], "m"):
		unit = "m"
	case strings.HasPrefix(m[2], "h"):
		unit = "h"
	case strings.HasPrefix(m[2], "d"):
		n, unit = n*24, "h"
	case strings.HasPrefix(m[2], "w"):
		n, unit = n*24*7, "h"
	}
	return wrong(quote(text)+" has no unit that is known here", fmt.Sprintf(`write "%d%s"; the units are h, m, s and ms`, n, unit))
}
