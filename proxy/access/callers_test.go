package access

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

const (
	hub    = "https://registry-1.docker.io"
	mirror = "https://mirror.example"
)

// upstreams are those of docker.io: itself and a mirror.
var upstreams = []Upstream{{Name: hub, URL: parsed(hub), Home: true}, {Name: mirror, URL: parsed(mirror)}}

func parsed(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

var repo = cache.Repository{Registry: "docker.io", Name: "library/alpine"}

// records are grants in memory in the place of the cache's.
type records struct {
	at    map[string]time.Time
	clock *clock
}

func recordKey(r cache.Repository, upstream, who string) string {
	return r.Registry + "/" + r.Name + " " + upstream + " " + who
}

func (m *records) Grant(r cache.Repository, upstream, who string, at time.Time, _ bool) error {
	m.at[recordKey(r, upstream, who)] = at
	return nil
}
func (m *records) Granted(r cache.Repository, upstream, who string) time.Time {
	return m.at[recordKey(r, upstream, who)]
}
func (m *records) Ungrant(r cache.Repository, upstream, who string) {
	delete(m.at, recordKey(r, upstream, who))
}

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

const week = 7 * 24 * time.Hour

func newGrants(t *testing.T) (*Grants, *records, *clock) {
	t.Helper()
	c := &clock{time.Now()}
	kept := &records{map[string]time.Time{}, c}
	g := NewGrants(kept, week)
	g.now = c.now
	return g, kept, c
}

// source knows one login, for Docker Hub.
type source credential.Credential

func (s source) Lookup(_ context.Context, registry, _ string) (credential.Credential, error) {
	if registry != "docker.io" {
		return credential.Credential{}, nil
	}
	return credential.Credential(s), nil
}

// everywhere knows one login for every host.
type everywhere credential.Credential

func (s everywhere) Lookup(context.Context, string, string) (credential.Credential, error) {
	return credential.Credential(s), nil
}

func login(user string) source {
	return source{Username: user, Password: credential.NewSecret("secret of " + user), Generation: "store:" + user}
}

func plainName(secrets ...string) string { return strings.Join(secrets, "-") }

// caller identifies who asks for alpine with an Authorization header, "" for none.
func caller(t *testing.T, p Policy, trusted bool, who ClientAuth, authorization string) Caller {
	t.Helper()
	p.Name = plainName
	r, err := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	presented := auth.Present(authorization, repo.Registry, repo.Name)
	return p.Identify(r, Target{Repository: repo.Name, Upstreams: upstreams, ClientAuth: who, Presented: presented}, trusted)
}

func engine(t *testing.T, user string) Caller {
	return caller(t, Policy{Credentials: login(user)}, true, ByDaemon, "")
}

func stranger(t *testing.T) Caller {
	return caller(t, Policy{Credentials: login("daemon")}, false, ByDaemon, "")
}

func client(t *testing.T, authorization string) Caller {
	return caller(t, Policy{Credentials: login("daemon")}, true, ByClient, authorization)
}
