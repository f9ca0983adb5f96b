package boot

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := errors.Join(build.remove(), formerBuild.remove()); err != nil {
			fmt.Fprintln(os.Stderr, "removing the packages:", err)
		}
		os.Exit(code)
	}))
}

// The other tests rely on this: without sidemirror the engines of a machine pull public images
// directly, and no private ones.
func TestWithoutUsThePublicIsPulledAndThePrivateIsNot(t *testing.T) {
	t.Parallel()
	m := newMachine(t, trixie)
	net := connect(t, m)
	m.readCerts()
	m.boot()
	for _, p := range pullers {
		for _, host := range []string{hub, ghcr} {
			// An engine does not fetch twice what it has: each pull needs an image of its own.
			public, private := fmt.Sprintf("acme/%s-%s", p.name, host), fmt.Sprintf("alice/%s-%s", p.name, host)
			net.public.Push(t, public, "v1", shape(1<<16))
			net.private.Push(t, private, "v1", shape(1<<16))
			if err := p.pull(m, reference(host, public)); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
			if ours, direct := net.visits(host, public); ours != 0 || direct < 4 {
				t.Errorf("%s fetched %s from %s with %d requests, and we with %d", p.name, public, host, direct, ours)
			}
			if err := p.pull(m, reference(host, private)); err == nil {
				t.Errorf("%s pulled a private image from %s without a login", p.name, host)
			}
		}
	}
}
