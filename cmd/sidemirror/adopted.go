package main

import (
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// adopted prints how sidemirror reaches registries because the engines do, one line each:
// "adopted    r.example: its CA (/etc/docker/certs.d/r.example)".
func (p *printer) adopted(engines []engine.State) {
	var all []engine.Adopted
	for _, e := range engines {
		all = append(all, e.Adopted...)
	}
	for _, a := range engine.MergeAdopted(all) {
		p.printf("adopted     %s: %s (%s)\n", printable(a.Registry), adoptedText(a), printable(a.From))
	}
}

// adoptedText says what is adopted: "a CA, a client certificate".
func adoptedText(a engine.Adopted) string {
	var parts []string
	if len(a.CA) > 0 {
		parts = append(parts, several(len(a.CA), "CA file"))
	}
	if len(a.Clients) > 0 {
		parts = append(parts, several(len(a.Clients), "client certificate"))
	}
	if a.SkipVerify {
		parts = append(parts, "certificate not verified")
	}
	if a.PlainHTTP {
		parts = append(parts, "plain HTTP")
	}
	return strings.Join(parts, ", ")
}
