package main

import "regexp"

var verb = regexp.MustCompile(`%(?:%|[-+# 0]*(?:\[\d+\])?[0-9.]*[a-zA-Z])`)

// verbs replaces the verbs of a format by "…".
func verbs(format string) string {
	return verb.ReplaceAllStringFunc(format, func(v string) string {
		if v == "%%" {
			return "%"
		}
		return unknown
	})
}
