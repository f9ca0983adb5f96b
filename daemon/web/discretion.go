package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
)

// refreshCoarse is how often the figures change that callers see who may not see images. They change
// at full minutes, whatever happens in between, so that they do not tell when it happens.
const refreshCoarse = time.Minute

// fromElsewhere reports whether another site's page made a browser send r, other than by leading its
// reader here: to run it as a script, to show it in a frame, or to measure it. Another port of this
// host is another site, too.
func fromElsewhere(r *http.Request) bool {
	if origin := r.Header["Origin"]; len(origin) > 1 || len(origin) == 1 && origin[0] != ownOrigin(r) {
		return true
	}
	site := r.Header["Sec-Fetch-Site"]
	switch {
	case len(site) == 0:
		return refererElsewhere(r) && wantsPart(r)
	case len(site) == 1 && (site[0] == "same-origin" || site[0] == "none"):
		return false
	}
	follows := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	return !follows || wantsPart(r) || len(r.Header["Sec-Purpose"]) > 0
}

// followedLink reports whether a page of another site led the reader here.
func followedLink(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none" || refererElsewhere(r)
}

func refererElsewhere(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Referer"], func(referer string) bool {
		u, err := url.Parse(referer)
		return err != nil || u.Scheme+"://"+u.Host != ownOrigin(r)
	})
}

func ownOrigin(r *http.Request) string {
	return forwarded.Scheme(r) + "://" + r.Host
}

// passedOn reports whether a program passes on the request of another one, which the kernel does not
// know.
func passedOn(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// seesImages reports whether the sender of r may see what is pulled, and every detail of problems.
func (p *page) seesImages(r *http.Request) bool {
	if p.info.ShowImages {
		return true
	}
	return p.info.Trusted != nil && p.info.Trusted(r) && !followedLink(r) && !passedOn(r)
}

// live returns what the sender of r may see of what happens, and whether it is all of it.
func (p *page) live(r *http.Request) (l Live, detailed bool) {
	if p.seesImages(r) {
		return p.info.Live(), true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.coarse.At.IsZero() || !now.Truncate(refreshCoarse).Equal(p.coarseAt) {
		p.coarse, p.coarseAt = coarse(p.info.Live(), p.info.Registries), now.Truncate(refreshCoarse)
	}
	return p.coarse, false
}

// coarse returns the part of l that any caller may see: no image, no address, no text that names one,
// and rounded figures. An exact number of bytes would name the image for anyone who has a list of
// sizes.
func coarse(l Live, public []config.Registry) Live {
	served := func(registry string) bool {
		return registry != config.Wildcard && slices.ContainsFunc(public, func(r config.Registry) bool { return r.Name == registry })
	}
	c := Live{
		At: l.At, Engines: slices.Clone(l.Engines), Watched: l.Watched, LastPull: l.LastPull.Truncate(5 * refreshCoarse),
		Stored: roundCount(l.Stored), Room: l.Room,
	}
	for _, problem := range l.Problems {
		c.Problems = append(c.Problems, Problem{Code: problem.Code, Title: problem.Title, Severe: problem.Severe, Note: problem.Note})
	}
	for _, t := range l.Traffic {
		c.Traffic = append(c.Traffic, Traffic{
			Stored: roundBytes(t.Stored), Fetched: roundBytes(t.Fetched),
			Hits: roundCount(t.Hits), Requests: roundCount(t.Requests),
		})
	}
	for _, u := range l.Upstreams {
		if served(u.Registry) {
			c.Upstreams = withUpstream(c.Upstreams, u)
		}
	}
	for _, b := range l.Budgets {
		if served(b.Registry) {
			b.Remaining = int(roundCount(int64(b.Remaining)))
			c.Budgets = append(c.Budgets, b)
		}
	}
	return c
}

// withUpstream adds to list, which has one upstream for each registry, that u can be reached or not: a
// registry can be if one of its upstreams can.
func withUpstream(list []Upstream, u Upstream) []Upstream {
	for i := range list {
		if list[i].Registry == u.Registry {
			list[i].Away = list[i].Away && u.Away
			return list
		}
	}
	return append(list, Upstream{Registry: u.Registry, Away: u.Away})
}

// roundBytes returns the largest number that is not above n and is 1, 2 or 5 times a power of ten. Less
// than 1 MB counts as nothing.
func roundBytes(n int64) int64 {
	const least = 1e6
	if n < least {
		return 0
	}
	step := int64(least)
	for n/step >= 10 && step < 1e18 {
		step *= 10
	}
	for _, m := range []int64{5, 2} {
		if n >= m*step {
			return m * step
		}
	}
	return step
}

// roundCount returns n, rounded down to one significant digit.
func roundCount(n int64) int64 {
	step := int64(1)
	for n/step >= 10 {
		step *= 10
	}
	return n / step * step
}
