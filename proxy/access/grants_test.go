package access

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// before is content that was known before any grant of a test.
func before(upstream string) cache.Learned {
	return cache.Learned{Upstream: upstream, By: "someone", Since: time.Now().Add(-time.Hour)}
}

func TestAGrantNamesUpstreamRepositoryAndIdentity(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	g.Allow(engine(t, "a"), repo, hub, c.at)
	other := cache.Repository{Registry: "docker.io", Name: "library/other"}
	for name, v := range map[string]struct {
		caller   Caller
		r        cache.Repository
		upstream string
		want     bool
	}{
		"the same":             {engine(t, "a"), repo, hub, true},
		"another repository":   {engine(t, "a"), other, hub, false},
		"another registry":     {engine(t, "a"), cache.Repository{Registry: "ghcr.io", Name: repo.Name}, hub, false},
		"another upstream":     {engine(t, "a"), repo, mirror, false},
		"not an upstream":      {engine(t, "a"), repo, "https://former.example", false},
		"another login":        {engine(t, "b"), repo, hub, false},
		"an untrusted caller":  {stranger(t), repo, hub, false},
		"a client's own token": {client(t, "Bearer x"), repo, hub, false},
	} {
		if got := g.May(v.caller, v.r, before(v.upstream)); got != v.want {
			t.Errorf("%s: may have it without asking: %v", name, got)
		}
		if got := g.MayWhileAway(v.caller, v.r, before(v.upstream)); got != v.want {
			t.Errorf("%s: may have it while the upstream is away: %v", name, got)
		}
	}
}

// A registry's upstreams change with the configuration. What a former one said does not count.
func TestAGrantOfAnUpstreamThatIsNoLongerConfiguredIsVoid(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/v2/", nil)
	identify := func(u ...Upstream) Caller {
		c := (Policy{}).Identify(r, Target{Upstreams: u}, false)
		return c
	}
	g.Allow(identify(upstreams...), repo, mirror, c.at)
	g.AllowList(identify(upstreams...), repo, mirror)
	now := identify(upstreams[0])
	known := before(mirror)
	known.By = anonymous
	if g.May(now, repo, known) || g.MayWhileAway(now, repo, known) || g.MayListWhileAway(now, repo, known) {
		t.Error("the former upstream's grant counts")
	}
}

func TestAGrantLivesFiveMinutes(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	e := engine(t, "a")
	g.Allow(e, repo, hub, c.at)
	for after, want := range map[time.Duration]bool{0: true, grantLife - time.Second: true, grantLife: false, time.Hour: false} {
		at := c.at
		c.at = at.Add(after)
		if got := g.May(e, repo, before(hub)); got != want {
			t.Errorf("after %v: %v", after, got)
		}
		c.at = at
	}
}

func jwt(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return "Bearer " + e([]byte(`{"alg":"none"}`)) + "." + e([]byte(claims)) + ".sig"
}

func TestABearersGrantEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	start := c.at
	for name, v := range map[string]struct {
		authorization string
		alive, ended  time.Duration
	}{
		"a token of two minutes":   {jwt(fmt.Sprintf(`{"exp":%d}`, start.Add(2*time.Minute).Unix())), time.Minute, 2*time.Minute + time.Second},
		"a fraction":               {jwt(fmt.Sprintf(`{"exp":%d.5}`, start.Add(2*time.Minute).Unix())), time.Minute, 2*time.Minute + time.Second},
		"a token of an hour":       {jwt(fmt.Sprintf(`{"exp":%d}`, start.Add(time.Hour).Unix())), grantLife - time.Second, grantLife},
		"an opaque token":          {"Bearer opaque", opaqueGrantLife - time.Second, opaqueGrantLife},
		"an end that is no number": {jwt(`{"exp":"tomorrow"}`), opaqueGrantLife - time.Second, opaqueGrantLife},
		"an end beyond all years":  {jwt(`{"exp":1e300}`), opaqueGrantLife - time.Second, opaqueGrantLife},
		"a negative end":           {jwt(`{"exp":-1}`), opaqueGrantLife - time.Second, opaqueGrantLife},
		"Basic":                    {"Basic dTpw", opaqueGrantLife - time.Second, opaqueGrantLife},
	} {
		c.at = start
		who := client(t, v.authorization)
		g.Allow(who, repo, hub, c.at)
		c.at = start.Add(v.alive)
		if !g.May(who, repo, before(hub)) {
			t.Errorf("%s: the grant has ended after %v", name, v.alive)
		}
		c.at = start.Add(v.ended)
		if g.May(who, repo, before(hub)) {
			t.Errorf("%s: the grant lives after %v", name, v.ended)
		}
	}
	expired := client(t, jwt(fmt.Sprintf(`{"exp":%d}`, start.Add(-time.Minute).Unix())))
	c.at = start
	if g.Allow(expired, repo, hub, c.at); g.May(expired, repo, before(hub)) {
		t.Error("a token that has ended has a grant")
	}
}

func TestOnlyTheUpstreamCanCheckAClientsOwnToken(t *testing.T) {
	t.Parallel()
	g, kept, c := newGrants(t)
	who := client(t, "Bearer x")
	g.Allow(who, repo, hub, c.at)
	if len(kept.at) != 0 {
		t.Errorf("a client's token has left a record: %v", kept.at)
	}
	// Even if there were records of that name.
	kept.at[recordKey(repo, hub, who.At(hub).name)] = c.at
	kept.at[recordKey(repo, hub, who.At(hub).name+forLists)] = c.at
	if g.MayWhileAway(who, repo, before(hub)) {
		t.Error("a client's own token counts while the upstream is away")
	}
	if g.MayListWhileAway(who, repo, cache.Learned{Upstream: hub}) {
		t.Error("a client's own token counts for lists while the upstream is away")
	}
	later := cache.Learned{Upstream: hub, Since: c.at.Add(time.Second)}
	if g.May(who, repo, later) {
		t.Error("what some client learned later is taken for what this one learned")
	}
	if who.At(hub).Recorded() != "" {
		t.Error("a client's token is named in records")
	}
}

func TestAnOlderGrantCountsWhileTheUpstreamIsAwayUpToMaxStale(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]bool{0: true, week - time.Minute: true, week: false, 2 * week: false, -time.Hour: false} {
		g, kept, c := newGrants(t)
		e := engine(t, "a")
		known := cache.Learned{Upstream: hub, By: e.At(hub).Recorded()}
		if g.MayWhileAway(e, repo, known) {
			t.Fatal("without any grant")
		}
		kept.at[recordKey(repo, hub, e.At(hub).name)] = c.at.Add(-age)
		if got := g.MayWhileAway(e, repo, known); got != want {
			t.Errorf("a grant %v old: %v", age, got)
		}
	}
}

func TestAnUpstreamThatIsAwayIsNotAskedForEachLayerOfAnImage(t *testing.T) {
	t.Parallel()
	g, kept, c := newGrants(t)
	e := engine(t, "a")
	start := c.at
	kept.at[recordKey(repo, hub, e.At(hub).name)] = start.Add(-time.Hour)
	layer := cache.Learned{Upstream: hub, By: "someone", Since: start.Add(-2 * time.Hour)}
	later := cache.Learned{Upstream: hub, By: "someone", Since: start.Add(-time.Minute)}
	if g.May(e, repo, layer) {
		t.Error("an old grant counts before the upstream was asked")
	}
	if !g.MayWhileAway(e, repo, layer) || !g.May(e, repo, layer) {
		t.Error("the upstream is asked for the next layer again")
	}
	if g.May(e, repo, later) || g.May(stranger(t), repo, layer) || g.May(e, repo, before(mirror)) {
		t.Error("the old grant covers more than it did")
	}
	c.at = start.Add(awayLife)
	if g.May(e, repo, layer) {
		t.Error("the upstream is not asked again after a while")
	}
	// A live grant is not made shorter or older.
	g.Allow(e, repo, hub, c.at)
	g.MayWhileAway(e, repo, layer)
	c.at = c.at.Add(2 * awayLife)
	if !g.May(e, repo, later) {
		t.Error("a live grant was replaced by an older one")
	}
}

func TestAGrantCoversWhatWasKnownBeforeOrLearnedByTheSameIdentity(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	e, other := engine(t, "a"), engine(t, "b")
	g.Allow(e, repo, hub, c.at)
	made := c.at
	for name, v := range map[string]struct {
		known cache.Learned
		want  bool
	}{
		"known before":                    {cache.Learned{Upstream: hub, By: other.At(hub).Recorded(), Since: made.Add(-time.Minute)}, true},
		"learned later by another login":  {cache.Learned{Upstream: hub, By: other.At(hub).Recorded(), Since: made.Add(time.Minute)}, false},
		"learned later by some client":    {cache.Learned{Upstream: hub, Since: made.Add(time.Minute)}, false},
		"learned later by the same login": {cache.Learned{Upstream: hub, By: e.At(hub).Recorded(), Since: made.Add(time.Minute)}, true},
	} {
		if got := g.May(e, repo, v.known); got != v.want {
			t.Errorf("%s: without asking: %v", name, got)
		}
		if got := g.MayWhileAway(e, repo, v.known); got != v.want {
			t.Errorf("%s: while away: %v", name, got)
		}
	}
	// Another word of the upstream covers it.
	later := cache.Learned{Upstream: hub, By: other.At(hub).Recorded(), Since: made.Add(time.Minute)}
	c.at = made.Add(2 * time.Minute)
	if g.Allow(e, repo, hub, c.at); !g.May(e, repo, later) {
		t.Error("a renewed grant does not cover it")
	}
}

func TestARefusalEndsTheGrantAtThatUpstreamForThatIdentity(t *testing.T) {
	t.Parallel()
	g, kept, c := newGrants(t)
	a, b := engine(t, "a"), engine(t, "b")
	g.Allow(a, repo, hub, c.at)
	g.Allow(a, repo, mirror, c.at)
	g.Allow(b, repo, hub, c.at)
	g.Revoke(a, repo, hub)
	if g.May(a, repo, before(hub)) || g.MayWhileAway(a, repo, before(hub)) {
		t.Error("the refused identity has its grant still")
	}
	if !g.May(a, repo, before(mirror)) || !g.May(b, repo, before(hub)) {
		t.Error("another upstream's grant, or another identity's, ended too")
	}
	// A new grant is written to disk at once, however recent the old one was.
	g.Allow(a, repo, hub, c.at)
	if kept.at[recordKey(repo, hub, a.At(hub).name)].IsZero() {
		t.Error("a grant after a refusal is not on record")
	}
}

// A response may take minutes, and the repository may become private meanwhile.
func TestAGrantIsAsOldAsTheRequestThatWasRespondedTo(t *testing.T) {
	t.Parallel()
	g, kept, c := newGrants(t)
	anyone, login := stranger(t), engine(t, "a")
	asked := c.at
	private := cache.Learned{Upstream: hub, By: login.At(hub).Recorded(), Since: asked.Add(time.Minute)}
	c.at = asked.Add(2 * time.Minute)
	g.Allow(anyone, repo, hub, asked)
	if g.May(anyone, repo, private) || g.MayWhileAway(anyone, repo, private) {
		t.Error("a slow response covers what another identity has learned meanwhile")
	}
	if !g.May(anyone, repo, before(hub)) {
		t.Error("it does not cover what was known before")
	}
	// One that was sent later, and responded to earlier, counts.
	g.Allow(login, repo, hub, c.at)
	g.Allow(login, repo, hub, asked)
	if !g.May(login, repo, cache.Learned{Upstream: hub, By: "someone", Since: c.at}) {
		t.Error("a slow response makes a newer grant older")
	}
	c.at = asked.Add(grantLife)
	if g.May(anyone, repo, before(hub)) {
		t.Error("the grant lives on after five minutes from the request")
	}
	c.at = asked.Add(time.Hour)
	g.Revoke(anyone, repo, hub)
	g.Allow(anyone, repo, hub, c.at.Add(-time.Second))
	if g.May(anyone, repo, before(hub)) || g.MayWhileAway(anyone, repo, before(hub)) || len(kept.at) != 1 {
		t.Errorf("the response to a request from before a refusal undoes the refusal: %v", kept.at)
	}
	g.Allow(anyone, repo, hub, c.at.Add(time.Hour))
	if kept.at[recordKey(repo, hub, anonymous)].After(c.at) {
		t.Error("a request from the future is on record")
	}
}

func TestAListIsGivenWhileAwayToTheIdentityItWasSentToOnly(t *testing.T) {
	t.Parallel()
	g, kept, c := newGrants(t)
	e := engine(t, "a")
	known := cache.Learned{Upstream: hub, By: e.At(hub).Recorded(), Since: c.at}
	if g.MayListWhileAway(e, repo, known) {
		t.Error("without a grant")
	}
	g.AllowList(e, repo, hub)
	if !g.MayListWhileAway(e, repo, known) {
		t.Error("the identity that it was sent to does not get it")
	}
	if g.May(e, repo, before(hub)) || g.MayWhileAway(e, repo, before(hub)) {
		t.Error("a list makes a grant for content")
	}
	for _, other := range []Caller{engine(t, "b"), stranger(t)} {
		g.Allow(other, repo, hub, c.at)
		g.AllowList(other, repo, hub) // of another state of the list
	}
	for name, other := range map[string]Caller{"another login": engine(t, "b"), "an untrusted caller": stranger(t), "a token": client(t, "Bearer x")} {
		if g.MayListWhileAway(other, repo, known) {
			t.Errorf("%s gets it", name)
		}
	}
	if g.MayListWhileAway(client(t, "Bearer x"), repo, cache.Learned{Upstream: hub}) {
		t.Error("a token gets what another token learned")
	}
	start := c.at
	c.at = start.Add(week)
	if g.MayListWhileAway(e, repo, known) {
		t.Error("after max_stale")
	}
	c.at = start
	if g.Revoke(e, repo, hub); g.MayListWhileAway(e, repo, known) {
		t.Errorf("after a refusal: %v", kept.at)
	}
}

func TestGrantsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	g, _, c := newGrants(t)
	who := client(t, "Bearer x")
	for i := range maxGrants + 100 {
		c.at = c.at.Add(time.Millisecond)
		g.Allow(who, cache.Repository{Registry: "docker.io", Name: fmt.Sprint("r", i)}, hub, c.at)
	}
	if len(g.live) > maxGrants {
		t.Errorf("%d grants", len(g.live))
	}
	last := cache.Repository{Registry: "docker.io", Name: fmt.Sprint("r", maxGrants+99)}
	if !g.May(who, last, cache.Learned{Upstream: hub}) {
		t.Error("the newest grant is gone")
	}
}
