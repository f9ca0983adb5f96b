package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/sidemirror/sidemirror/test/quirky"
)

// tell prints who asked whom: each request of the engine's, and below it what
// sidemirror asked for its sake.
func tell(s *scene, engine []sent, upstream []quirky.Request) {
	for _, e := range engine {
		note := "no password"
		if e.authorization != "" {
			note = "with credentials"
		}
		if e.length > 0 {
			note += ", " + size(e.length)
		}
		s.row("", "engine", "sidemirror", e.method, what(e.path), e.status, note)
		for _, u := range upstream {
			// A daemon that has just started asks /v2/ whether its registries are there,
			// which may fall into a pull without belonging to it.
			if u.At.Before(e.began) || u.At.After(e.end) || u.Path == "/v2/" {
				continue
			}
			s.row("  ", "sidemirror", parts[u.Part], u.Method, asked(u), u.Status, noteOn(u))
		}
	}
}

var parts = map[quirky.Part]string{
	quirky.Registry:  "registry",
	quirky.Token:     "token server",
	quirky.BlobStore: "blob store",
}

// row is one line of the transcript. Widths are of the text without its colours.
func (s *scene) row(indent, from, to, method, what string, status int, note string) {
	who := fmt.Sprintf("%-27s", indent+from+" → "+to)
	if indent == "" {
		who = s.cyan(who)
	}
	code := s.green(fmt.Sprint(status))
	if status < 200 || status > 299 {
		code = s.yellow(fmt.Sprint(status))
	}
	s.line("  %s  %-4s %-29s %s  %s", who, method, what, code, s.dim(note))
}

// what names the thing that a registry's path stands for.
func what(p string) string {
	kind := strings.TrimSuffix(path.Base(path.Dir(p)), "s")
	return kind + " " + short(path.Base(p))
}

func asked(u quirky.Request) string {
	switch u.Part {
	case quirky.Token:
		return strings.TrimPrefix(u.Query.Get("scope"), "repository:")
	case quirky.BlobStore:
		return "a signed URL"
	}
	return what(u.Path)
}

// noteOn says what a request to the upstream carried, and what became of it.
func noteOn(u quirky.Request) string {
	var carried string
	switch scheme, _, _ := strings.Cut(u.Authorization(), " "); {
	case scheme == "":
		carried = "no Authorization"
	case strings.EqualFold(scheme, "Bearer"):
		carried = "the token"
	default:
		carried = user + "'s password"
	}
	switch {
	case u.Part == quirky.Token && u.Status == http.StatusOK:
		return carried + " → a token"
	case u.Status == http.StatusUnauthorized:
		return carried + " → bring a token"
	case u.Status/100 == 3:
		return carried + " → fetch it from the blob store"
	}
	if u.Sent > 0 && u.Part != quirky.Token {
		return carried + ", " + size(u.Sent)
	}
	return carried
}

// checkEngine proves that the engine went to sidemirror alone and showed nothing.
func checkEngine(s *scene, requests []sent, address string) {
	elsewhere, shown := 0, 0
	for _, r := range requests {
		if r.host != address {
			elsewhere++
		}
		if r.authorization != "" {
			shown++
		}
	}
	s.check(len(requests) > 0 && elsewhere == 0 && shown == 0,
		"the engine sent %d requests, %d past sidemirror, %d with a credential", len(requests), elsewhere, shown)
}

// checkUpstream proves from the upstream's own record where the password and the
// token went.
func checkUpstream(s *scene, requests []quirky.Request) {
	secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	count := map[quirky.Part]struct{ all, password, token int }{}
	for _, r := range requests {
		c := count[r.Part]
		c.all++
		if strings.Contains(r.Authorization(), secret) || strings.Contains(r.Body, password) {
			c.password++
		}
		if strings.HasPrefix(r.Authorization(), "Bearer ") {
			c.token++
		}
		count[r.Part] = c
	}
	registry, token, blobs := count[quirky.Registry], count[quirky.Token], count[quirky.BlobStore]
	s.check(token.password == 1 && registry.password+blobs.password == 0,
		"the password went to the token server, once, and nowhere else")
	s.check(blobs.all > 0 && blobs.password+blobs.token == 0,
		"the blob store gave %d blobs and was shown no credential", blobs.all)
}

// checkLog proves that sidemirror's access log tells the same story.
func checkLog(s *scene, m *sidemirror, requests []sent) {
	served := m.linesAtLeast(registryName, len(requests))
	good := 0
	for _, line := range served {
		if line.Status/100 == 2 {
			good++
		}
	}
	s.check(good == len(requests), "sidemirror's access log has a line for each of the %d, all 2xx", good)
	s.check(!strings.Contains(m.log.String(), password), "and the password is nowhere in it")
}
