package shared

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestWhatOneHostHasFetchedOthersReadFromTheStore(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		small, big := newBlob("small", 3000), newBlob("big", large)
		u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {small, big}})
		first, second := host(t, u.URL(), s), host(t, u.URL(), s)
		for _, b := range []blob{small, big} {
			pull(t, first, b)
			eventually(t, "the store has the blob", func() bool { return s.has(b) })
			if !bytes.Equal(s.content(b), b.Bytes) {
				t.Error("the store has other bytes than the registry")
			}
		}
		u.hold()
		pull(t, second, big)
		pull(t, second, small)
		if log := second.Log(); strings.Count(log, "cache=fill") != 2 {
			t.Errorf("the log of the second host does not say that two blobs came in:\n%s", log)
		}
		pull(t, second, big) // from its own disk
		if names := s.objects(); !slices.Equal(names, sorted(small.object(), big.object())) {
			t.Errorf("the store has %q", names)
		}
	})
}

func sorted(names ...string) []string {
	slices.Sort(names)
	return names
}

func TestAHostThatDoesNotUploadReadsAllTheSame(t *testing.T) {
	s := startFake(t)
	in, out := newBlob("in", large), newBlob("out", large)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {in, out}})
	s.put(in, in.Bytes)
	h := host(t, u.URL(), s, func(o *harness.Options) { o.Extra = s.config("upload = false") })
	pull(t, h, out)
	u.hold()
	pull(t, h, in)
	h.Stop()
	if names := s.objects(); !slices.Equal(names, []string{in.object()}) {
		t.Errorf("the store has %q", names)
	}
}

func TestHostsThatStartAtOnceFetchABlobFromTheRegistryOnce(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		b := newBlob("herd", large)
		u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {b}})
		pace := newPace(t, u.URL(), 16<<20)
		const hosts = 6
		var all []*harness.Sidemirror
		for range hosts {
			all = append(all, host(t, pace.url, s))
		}
		harness.Together(hosts, func(i int) {
			all[i].Get(b.path(repo), nil).Whole(t, fmt.Sprintf("host %d", i), b.Bytes)
		})
		n := pace.sent.Load()
		t.Logf("the registry has sent %.2f times the blob", float64(n)/large)
		if n < large || n > 3*large {
			t.Errorf("the registry has sent %d bytes for a blob of %d and %d hosts", n, large, hosts)
		}
		eventually(t, "no claim is left", func() bool { return slices.Equal(s.objects(), []string{b.object()}) })
	})
}

func TestAClaimOfAHostThatWasKilledDelaysNoOtherForLong(t *testing.T) {
	s := startFake(t)
	b := newBlob("killed", large)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {b}})
	pace := newPace(t, u.URL(), 4<<20)
	first := host(t, pace.url, s)
	go first.Get(b.path(repo), nil)
	eventually(t, "the first host has claimed the blob", func() bool { return slices.Contains(s.objects(), b.named("claims")) })
	first.Kill()
	pace.rate.Store(0)
	second := host(t, pace.url, s)
	pull(t, second, b)
}

func TestOnlyWhatEveryoneMayReadIsUploaded(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		open, secret := newBlob("open", large), newBlob("secret", large)
		u := newUpstream(t, quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", Users: map[string]string{"bot": "hunter-of-bots"}, Private: []string{"team/secret"}}},
			map[string][]blob{repo: {open}, "team/secret": {secret}})
		logins := func(o *harness.Options) { o.Logins = map[string]string{name: "bot:hunter-of-bots"} }
		h := host(t, u.URL(), s, logins)
		h.Get(secret.path("team/secret"), nil).Whole(t, "private", secret.Bytes)
		// The open one is fetched with the login too, and is uploaded later than the private one would be.
		pull(t, h, open)
		eventually(t, "the open blob is uploaded", func() bool { return s.has(open) })
		eventually(t, "no claim is left", func() bool { return slices.Equal(s.objects(), []string{open.object()}) })
		if log := h.Log(); strings.Contains(log, "panic") {
			t.Error(log)
		}

		// Another host that has no login does not get what the store would have.
		s.put(secret, secret.Bytes)
		visitor := host(t, u.URL(), s)
		if a := visitor.Get(secret.path("team/secret"), nil); a.Status != http.StatusUnauthorized || bytes.Contains(a.Body, secret.Bytes[:64]) {
			t.Errorf("a host without a login got %d", a.Status)
		}
		// One with the login gets it, and from the store.
		u.hold()
		member := host(t, u.URL(), s, logins)
		member.Get(secret.path("team/secret"), nil).Whole(t, "private, with the login", secret.Bytes)
	})
}

func TestPrivateContentIsSharedIfTheConfigurationSaysSo(t *testing.T) {
	s := startFake(t)
	secret := newBlob("secret", large)
	u := newUpstream(t, quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", Users: map[string]string{"bot": "hunter-of-bots"}, Private: []string{""}}}, map[string][]blob{repo: {secret}})
	h := host(t, u.URL(), s, func(o *harness.Options) {
		o.Logins, o.Extra = map[string]string{name: "bot:hunter-of-bots"}, s.config("private = true")
	})
	pull(t, h, secret)
	eventually(t, "the blob is uploaded", func() bool { return s.has(secret) })
}

func TestARepositoryThatBecomesPrivateIsUploadedNoMore(t *testing.T) {
	s := startFake(t)
	before, after := newBlob("before", large), newBlob("after", large)
	auth := quirky.Auth{Scheme: "Bearer", Users: map[string]string{"bot": "hunter-of-bots"}}
	u := newUpstream(t, quirky.Options{Auth: auth}, map[string][]blob{repo: {before, after}})
	h := host(t, u.URL(), s, func(o *harness.Options) { o.Logins = map[string]string{name: "bot:hunter-of-bots"} })
	pull(t, h, before)
	eventually(t, "the blob of the public repository is uploaded", func() bool { return s.has(before) })
	u.Set(func(o *quirky.Options) { o.Auth.Private = []string{""} })
	pull(t, h, after)
	h.Stop() // what is being uploaded would be finished or dropped; what is refused is not begun
	if names := s.objects(); slices.Contains(names, after.object()) || slices.Contains(names, after.named("claims")) {
		t.Errorf("the store has %q", names)
	}
}

func TestWhatUntrustedCallersFetchIsNotUploaded(t *testing.T) {
	s := startFake(t)
	theirs, ours := newBlob("theirs", large), newBlob("ours", large)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {theirs, ours}})
	h := host(t, u.URL(), s)
	h.DoWith(harness.ClientAs(t, harness.Untrusted), http.MethodGet, theirs.path(repo), nil).Whole(t, "untrusted", theirs.Bytes)
	pull(t, h, ours)
	eventually(t, "what a trusted caller fetched is uploaded", func() bool { return s.has(ours) })
	if names := s.objects(); slices.Contains(names, theirs.object()) {
		t.Errorf("the store has %q", names)
	}
}

func TestALazyClientsRangesComeFromTheRegistry(t *testing.T) {
	s := startFake(t)
	b := newBlob("lazy", large)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {b}})
	s.put(b, b.Bytes)
	h := host(t, u.URL(), s)
	a := h.Get(b.path(repo), http.Header{"Range": {"bytes=1000000-1065535"}})
	if a.Status != http.StatusPartialContent || !bytes.Equal(a.Body, b.Bytes[1000000:1065536]) {
		t.Errorf("status %d, %d bytes", a.Status, len(a.Body))
	}
	if u.requests() == 0 {
		t.Error("the range did not come from the registry: a client would wait for the whole blob")
	}
}
