package main

import (
	"fmt"
	"strings"
)

// reasons are why a number may not be reached, as far as that is known, by the beginning of its
// figure. They are printed only if it is not.
var reasons = []struct{ figure, reason string }{
	{"warm manifest", "sidemirror asks the kernel whose connection it is, and whether that caller may have the content; two thirds of the rest is net/http."},
	{"first byte of a cold blob", "sidemirror looks up who may have the blob before it asks, and makes a file and a list of extents before it sends; nginx does neither."},
	{"cold pull of a 20-layer image, upstream 50 ms away", "the engine soon catches up with the prefetch, and then four layers are under way at a time."},
	{"cold blob, bytes from upstream", "a connection that is closed before the end of its body loses what is under way: its rate times the round trip."},
	{"cold blob of ", "what comes in is written to the disk, by nginx too: its row shows what that takes."},
	{"cache ls of all", "an image of six blobs takes 34 system calls, and four small files of JSON to read."},
	{"cold burst", "a connection that is closed before the end of its body loses what is under way: its rate times the round trip."},
	{"containerd, a layer", "a connection that is closed before the end of its body loses what is under way: its rate times the round trip."},
	{"docker, a layer", "a connection that is closed before the end of its body loses what is under way: its rate times the round trip."},
	{"podman, a zstd:chunked layer", "a connection that is closed before the end of its body loses what is under way: its rate times the round trip."},
}

// why returns a list of the numbers that were not reached and whose reason is known, as Markdown. It
// is empty if there is none.
func (r *report) why() string {
	var b strings.Builder
	for _, v := range r.verdicts {
		if v.reached {
			continue
		}
		for _, known := range reasons {
			if strings.HasPrefix(v.figure, known.figure) {
				b.WriteString(wrap(fmt.Sprintf("- Not reached: %s: %s", v.figure, known.reason)) + "\n")
				break
			}
		}
	}
	return b.String()
}
