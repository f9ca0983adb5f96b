package access

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func TestTheDaemonsLoginServesTrustedCallersOnly(t *testing.T) {
	t.Parallel()
	if id := engine(t, "daemon").At(hub); id.Credential.Username != "daemon" || id.Recorded() == anonymous {
		t.Errorf("a trusted engine asks as %q", id.Credential.Username)
	}
	for name, c := range map[string]Caller{
		"untrusted":         stranger(t),
		"relay, no header":  client(t, ""),
		"relay, own header": client(t, "Bearer x"),
	} {
		if id := c.At(hub); !id.Credential.IsZero() {
			t.Errorf("%s asks as %q", name, id.Credential.Username)
		}
	}
}

func TestOfSeveralUpstreamsOnlyTheOneThatALoginIsForGetsIt(t *testing.T) {
	t.Parallel()
	e := engine(t, "a")
	if id := e.At(hub); id.Credential.Username != "a" {
		t.Errorf("Docker Hub is asked as %q", id.Credential.Username)
	}
	if id := e.At(mirror); !id.Credential.IsZero() || id.Recorded() != anonymous {
		t.Errorf("the mirror is asked as %q", id.Credential.Username)
	}
	c := client(t, "Bearer x")
	if !c.At(hub).Relay || c.At(hub).Authorization.IsZero() {
		t.Error("in relay mode the registry does not get its client's header")
	}
	if id := c.At(mirror); id.Relay || !id.Authorization.IsZero() || id.Recorded() != anonymous {
		t.Error("in relay mode a mirror gets the header of the registry's client")
	}
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
	all := Policy{Credentials: everywhere(login("a")), Name: plainName}.Identify(r, Target{Upstreams: upstreams, ClientAuth: ByClient}, true)
	if !all.At(mirror).Credential.IsZero() || !all.At(hub).Credential.IsZero() {
		t.Error("in relay mode a login of the daemon's is used")
	}
	if id := e.At("https://unknown.example"); !id.Credential.IsZero() {
		t.Error("an unknown upstream gets a login")
	}
}

func TestAClientCertificateIsACredentialOfTrustedCallersOnly(t *testing.T) {
	t.Parallel()
	certified := func(trusted bool, who ClientAuth, fingerprint string) Identity {
		r, _ := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
		u := []Upstream{{Name: hub, URL: parsed(hub), Home: true, Certificate: fingerprint}}
		c := (Policy{Name: plainName}).Identify(r, Target{Upstreams: u, ClientAuth: who}, trusted)
		return c.At(hub)
	}
	for _, who := range []ClientAuth{ByDaemon, ByClient, ByEither} {
		if id := certified(true, who, "ab"); !id.Certificate {
			t.Errorf("client auth %v: a trusted caller is served without the certificate", who)
		}
		if id := certified(false, who, "ab"); id.Certificate || id.name != anonymous {
			t.Errorf("client auth %v: an untrusted caller is served with the certificate", who)
		}
	}
	with, other := certified(true, ByDaemon, "ab"), certified(true, ByDaemon, "cd")
	if with.name == anonymous || with.name == other.name {
		t.Errorf("certificates are no identities of their own: %q, %q", with.name, other.name)
	}
	if certified(true, ByDaemon, "").Certificate {
		t.Error("a certificate that does not exist")
	}
}

func TestWithoutRecordsALoginIsNamedByItsGeneration(t *testing.T) {
	t.Parallel()
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
	c := Policy{Credentials: login("a")}.Identify(r, Target{Upstreams: upstreams[:1]}, true)
	if c.At(hub).Recorded() != "store:a" {
		t.Errorf("%q", c.At(hub).Recorded())
	}
}

func TestAClientsAuthorizationIsUsedInRelayModeOnly(t *testing.T) {
	t.Parallel()
	if id := client(t, "Bearer x").At(hub); id.Authorization.Reveal() != "Bearer x" {
		t.Error("relay mode drops the client's header")
	}
	if id := caller(t, Policy{}, false, ByDaemon, "Bearer x").At(hub); !id.Authorization.IsZero() {
		t.Error("a client's header is passed on outside relay mode")
	}
}

// half is a credential source that knows one login and cannot read the others.
type half struct{ source }

func (h half) Lookup(ctx context.Context, registry, repository string) (credential.Credential, error) {
	if c, _ := h.source.Lookup(ctx, registry, repository); !c.IsZero() {
		return c, nil
	}
	return credential.Credential{}, errors.New("half-written")
}

func TestACredentialThatCannotBeReadLeavesItsUpstreamAnonymous(t *testing.T) {
	t.Parallel()
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
	p := Policy{Credentials: half{login("a")}, Name: plainName}
	c := p.Identify(r, Target{Upstreams: upstreams}, true)
	if c.At(hub).Credential.Username != "a" || c.At(mirror).name != anonymous {
		t.Errorf("Docker Hub is asked as %q and the mirror as %q", c.At(hub).name, c.At(mirror).name)
	}
	if err := c.Unread(); err == nil || err.Error() != "half-written" {
		t.Errorf("the reason is %v", err)
	}
	for what, err := range map[string]error{
		"an upstream whose login can be read": p.Identify(r, Target{Upstreams: upstreams[:1]}, true).Unread(),
		"an untrusted caller":                 p.Identify(r, Target{Upstreams: upstreams}, false).Unread(),
		"relay mode, at the registry itself":  p.Identify(r, Target{Upstreams: upstreams[:1], ClientAuth: ByClient}, true).Unread(),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCallersShareANameOnlyInTheSameIdentities(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for what, c := range map[string]Caller{
		"a": engine(t, "a"), "b": engine(t, "b"), "untrusted": stranger(t), "bearer x": client(t, "Bearer x"), "bearer y": client(t, "Bearer y"),
	} {
		if other, taken := names[c.Name()]; taken {
			t.Errorf("%s and %s share the name %q", what, other, c.Name())
		}
		names[c.Name()] = what
	}
	first, again := engine(t, "a").Name(), engine(t, "a").Name()
	if first != again || stranger(t).Name() != client(t, "").Name() {
		t.Error("the same identities have two names")
	}
}

// With client_auth = "auto" the daemon's login comes first, and then the caller's own.
func TestACallersOwnLoginCountsWhereTheDaemonHasNone(t *testing.T) {
	t.Parallel()
	with, without := Policy{Credentials: login("daemon")}, Policy{}
	if id := caller(t, with, true, ByEither, "Bearer x").At(hub); id.Credential.Username != "daemon" || !id.Authorization.IsZero() || id.MayLogIn {
		t.Error("a trusted caller with a token is not served with the daemon's login")
	}
	for what, c := range map[string]Caller{
		"untrusted":                         caller(t, with, false, ByEither, "Bearer x"),
		"trusted, no login of the daemon's": caller(t, without, true, ByEither, "Bearer x"),
	} {
		if id := c.At(hub); id.Authorization.Reveal() != "Bearer x" || !id.Credential.IsZero() || id.Recorded() != "" {
			t.Errorf("%s: the caller's own token is not used", what)
		}
		if id := c.At(mirror); !id.Authorization.IsZero() || id.MayLogIn {
			t.Errorf("%s: a mirror gets the caller's token", what)
		}
	}
	anon := caller(t, without, true, ByEither, "").At(hub)
	if anon.Relay || !anon.MayLogIn || anon.Recorded() != anonymous {
		t.Error("a caller without a token is not asked for as an anonymous client that may log in")
	}
}
