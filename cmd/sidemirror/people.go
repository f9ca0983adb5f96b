package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
)

// bytesText is a number of bytes for people: "3.4 MiB".
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if value < 1023.95 { // what would be shown as 1024.0
			break
		}
		value, unit = value/1024, next
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

// agoText is how long ago something was, as exactly as anybody wants to know.
func agoText(at, now time.Time) string {
	several := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit + " ago"
		}
		return fmt.Sprintf("%d %ss ago", n, unit)
	}
	switch d := now.Sub(at); {
	case at.IsZero():
		return "never"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return several(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return several(int(d/time.Hour), "hour")
	default:
		return several(int(d/(24*time.Hour)), "day")
	}
}

// several counts things: "1 file", "2 files".
func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

var daysForm = regexp.MustCompile(`^([0-9]{1,4})([dw])$`)

// parseAge reads a time as people say it: Go's durations, and days and weeks.
func parseAge(text string) (time.Duration, error) {
	if m := daysForm.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		if m[2] == "w" {
			n *= 7
		}
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf(`%q is not a time; write a number and a unit, as "12h", "30d" or "2w"`, text)
	}
	return d, nil
}

// writeJSON writes v for programs, and for people who look what programs get.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
