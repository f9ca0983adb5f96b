package main

import (
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// adopted prints how sidemirror reaches registries because the engines do, one line each, in columns
// of which the first is as wide as label: "adopted     r.example: 1 CA file (/etc/docker/certs.d/r.example)".
func (p *printer) adopted(label string, engines []engine.State) {
	var all []engine.Adopted
	for _, e := range engines {
		all = append(all, e.Adopted...)
	}
	for _, a := range engine.MergeAdopted(all) {
		p.printf("%s%s: %s (%s)\n", label, printable(a.Registry), adoptedText(a), printable(a.From))
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
