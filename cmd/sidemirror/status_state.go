package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// refusedCaller is a caller that the daemon did not trust, and what would make it trusted.
type refusedCaller struct {
	state.Refused
	Hint string `json:"hint,omitempty"`
}

// readState returns what the running daemon knows of itself. It is empty if the daemon does not run,
// or if this user may not read it.
func readState() state.State {
	var owners []uint32
	if uid, found := portowner.Proxy(); found {
		owners = append(owners, uid)
	}
	s, err := state.Read(state.File, owners...)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		s.Notes = append(s.Notes, problem.Coded(err, "state-unreadable"))
	}
	return s
}

// addState adds what the daemon knows of itself, except its problems, which addProxy has. c is the configuration that it uses.
func (s *status) addState(daemon state.State, c *config.Config) {
	s.Notes = append(s.Notes, daemon.Notes...)
	s.Logins, s.Outbound, s.Guests, s.Site = daemon.Logins, daemon.Outbound, daemon.Guests, daemon.Site
	for _, r := range daemon.Refused {
		s.RefusedCallers = append(s.RefusedCallers, refusedCaller{r, trustHint(r, c)})
	}
	s.OK = len(s.problems()) == 0
}

// sourceTexts name the sources of logins.
var sourceTexts = map[string]string{
	"store": "sidemirror login", "systemd": "a credential of systemd's", "file": "a file", "environment": "DOCKER_AUTH_CONFIG",
	"helper": "a credential helper", "plugin": "a plugin of the kubelet's",
}

// loginsText lists logins by their source: "sidemirror login: docker.io, ghcr.io; a file: quay.io".
func loginsText(logins []state.Login) string {
	var sources []string
	hosts := map[string][]string{}
	for _, l := range logins {
		if hosts[l.Source] == nil {
			sources = append(sources, l.Source)
		}
		hosts[l.Source] = append(hosts[l.Source], l.Host)
	}
	for i, source := range sources {
		sources[i] = cmp.Or(sourceTexts[source], source) + ": " + strings.Join(hosts[source], ", ")
	}
	return strings.Join(sources, "; ")
}

// trustTable is the heading of the table in which the setting would be.
var trustTable = lazyregexp.New(`(?m)^[ \t]*(\[[ \t]*trust[ \t]*\]|trust[ \t]*[.=])`)

// unitText is what trust.units can name.
var unitText = lazyregexp.New(`^[A-Za-z0-9:_.\\@/-]+$`)

// transient is a unit that systemd-run has named, differently each time.
var transient = lazyregexp.New(`^run-[a-z0-9-]+\.(service|scope)$`)

// trustHint returns what would make a caller trusted: a command if the configuration file has no table
// [trust] yet. It returns "" for one that cannot be.
func trustHint(r state.Refused, c *config.Config) string {
	if r.Container || r.Group == "" && r.UserTrusted {
		return ""
	}
	var key string
	switch unit := unitOf(r.Group); {
	case r.UserTrusted && transient().MatchString(unit):
		return "to trust it, give its unit a name (systemd-run --unit=NAME), and add that to trust.units"
	case !r.UserTrusted:
		key = fmt.Sprintf("uids = [%s]", strings.Join(append(texts(c.Trust.UIDs), strconv.FormatUint(uint64(r.UID), 10)), ", "))
	case unitText().MatchString(unit) && !slices.Contains(c.Trust.Units, unit):
		quoted := make([]string, 0, len(c.Trust.Units)+1)
		for _, name := range append(slices.Clone(c.Trust.Units), unit) {
			quoted = append(quoted, strconv.Quote(name))
		}
		key = fmt.Sprintf("units = [%s]", strings.Join(quoted, ", "))
	default:
		return ""
	}
	// printf would interpret a backslash, as in the names of units that systemd escapes.
	if trustTable().MatchString(c.Contents()) || strings.Contains(key, `\`) {
		return fmt.Sprintf("to trust it, set %s in [trust] of %s", key, c.File)
	}
	return fmt.Sprintf("to trust it: printf '\\n[trust]\\n%s\\n' | sudo tee -a %s", key, c.File)
}

// unitOf returns the unit of a control group, as trust.units has it, or the group itself if it is in
// none.
func unitOf(group string) string {
	above, name := path.Split(group)
	for part := range strings.SplitSeq(strings.Trim(above, "/"), "/") {
		if part != "" && !strings.HasSuffix(part, ".slice") {
			return group
		}
	}
	if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
		return name
	}
	return group
}

func texts(uids []uint32) []string {
	list := make([]string, len(uids))
	for i, uid := range uids {
		list[i] = strconv.FormatUint(uint64(uid), 10)
	}
	return list
}

// rank orders callers: those that are most likely meant to be trusted first, and containers last.
func (r refusedCaller) rank() int {
	switch {
	case r.Container:
		return 2
	case !r.UserTrusted:
		return 1
	}
	return 0
}

// shownCallers bounds how many callers are printed. --json has them all.
const shownCallers = 10

// refusedCallers prints the callers that were not trusted lately.
func (p *printer) refusedCallers(list []refusedCaller, now time.Time) {
	if len(list) == 0 {
		return
	}
	p.printf("\nnot trusted, and so served without sidemirror's logins:\n")
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b refusedCaller) int { return a.rank() - b.rank() })
	for _, r := range list[:min(len(list), shownCallers)] {
		where := r.Group
		switch {
		case where == "":
			where = "a control group that is gone or cannot be seen"
		case r.Container:
			where = "a container, " + where
		}
		p.printf("            user %s in %s: %s, last %s\n", portowner.Name(r.UID), printable(where),
			several(int(r.Requests), "request"), agoText(r.Last, now))
		if r.Hint != "" {
			p.printf("            %s\n", printable(r.Hint))
		}
	}
	if more := len(list) - shownCallers; more > 0 {
		p.printf("            and %d more: sidemirror status --json\n", more)
	}
}
