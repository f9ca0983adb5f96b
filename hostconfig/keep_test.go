package hostconfig

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// keeping is a Keeper whose time the test makes.
type keeping struct {
	*testing.T
	Keeper
	want  Desired
	fake  *fakeDockerd
	later time.Duration
}

func keep(t *testing.T, h *Host, want Desired) *keeping {
	k := &keeping{T: t, want: want, fake: &fakeDockerd{host: h}}
	h.signaler = k.fake
	k.Host = h
	k.now = func() time.Time { return time.Now().Add(k.later) }
	return k
}

func (k *keeping) round() Kept {
	k.Helper()
	out, err := k.Round(context.Background(), k.want)
	if err != nil {
		k.Fatal(err)
	}
	return out
}

// settle has rounds until nothing is waited for, as the watching service does, and
// answers with the time that it took.
func (k *keeping) settle() (took time.Duration, last Kept) {
	k.Helper()
	for range 100 {
		if last = k.round(); last.Again == 0 && len(last.Written)+len(last.Given) == 0 {
			return took, last
		}
		took += last.Again
		k.later += last.Again
	}
	k.Fatal("it never settles")
	return
}

func TestKeeper48OneRewriteIsPutBackOnce(t *testing.T) {
	for name, text := range map[string]string{"rewritten": `{"icc": true}`, "emptied": "", "removed": "-"} {
		t.Run(name, func(t *testing.T) {
			k := keep(t, dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"}), dockerOnly())
			k.settle()
			if text == "-" {
				if err := os.Remove(k.Host.path(dockerJSON)); err != nil {
					t.Fatal(err)
				}
			} else {
				k.Host.put(t, dockerJSON, text)
			}
			if out := k.round(); len(out.Written) != 0 || out.Again <= 0 || out.Again > emptied {
				t.Errorf("it does not wait for the other to end: wrote %q, again in %v", out.Written, out.Again)
			}
			reloads := k.fake.reloads
			took, last := k.settle()
			if took > 2*time.Second || k.fake.reloads != reloads+1 || len(last.Changes) != 0 || len(last.Lost) != 0 {
				t.Errorf("after %v and %d reloads: %+v", took, k.fake.reloads-reloads, last)
			}
			contains(t, k.Host.get(t, dockerJSON), ourURL, strings.Trim(text, "{}-"))
			k.later += 24 * time.Hour
			if _, last := k.settle(); len(last.Written) != 0 {
				t.Errorf("wrote %q again", last.Written)
			}
		})
	}
}

func TestKeeper49ARewriteLoopIsGivenUp(t *testing.T) {
	k := keep(t, dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"}), dockerOnly())
	k.settle()
	var pauses []time.Duration
	for range 3 * maxRounds {
		k.Host.put(t, dockerJSON, "{}")
		took, last := k.settle()
		if len(last.Lost) > 0 {
			break
		}
		pauses = append(pauses, took)
	}
	if len(pauses) != maxRounds {
		t.Errorf("put back %d times", len(pauses))
	}
	// The file's own time does not know of the test's clock: each pause is counted from the
	// one before it, and the last is half of 250 ms doubled nine times.
	if !slices.IsSorted(pauses[1:]) || pauses[len(pauses)-1] < time.Minute {
		t.Errorf("no longer pause each time: %v", pauses)
	}
	reloads := k.fake.reloads
	for range 5 {
		k.later += time.Hour
		out := k.round()
		if !slices.Equal(out.Lost, []string{dockerJSON}) || out.Again != 0 || k.fake.reloads != reloads || k.Host.get(t, dockerJSON) != "{}" {
			t.Fatalf("not given up: %+v", out)
		}
	}
	// Other files are kept all the same, and with other wishes this one too.
	k.want.Mirror = "http://127.0.0.1:6000"
	k.settle()
	contains(t, k.Host.get(t, dockerJSON), k.want.Mirror)
}

func TestAFightThatWasLongAgoIsForgotten(t *testing.T) {
	k := keep(t, dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"}), dockerOnly())
	k.settle()
	for range 3 * maxRounds { // once a day
		k.later += 24 * time.Hour
		k.Host.put(t, dockerJSON, "{}")
		if _, last := k.settle(); len(last.Lost) > 0 {
			t.Fatal("given up")
		}
	}
}

func TestContainerdIsNotRestartedForAFight(t *testing.T) {
	h := host(t, map[string]string{containerdConfig: "version = 2\n"})
	h.Versions[Containerd] = "1.7.34"
	k := keep(t, h, restarting())
	k.settle()
	for range 10 {
		h.put(t, containerdConfig, "version = 2\n")
		k.settle()
	}
	if k.fake.restarts != 1+maxRestarts {
		t.Errorf("%d restarts", k.fake.restarts)
	}
	contains(t, h.get(t, rHosts), ourHost)
}

// A hosts.toml that a mirror needs is fought over; the mirror must not be written
// meanwhile.
func TestWhatIsHeldBackHoldsWhatNeedsIt(t *testing.T) {
	h := dockerHost(t, "28.5.2", map[string]string{"/etc/docker/": ""})
	k := keep(t, h, dockerOnly())
	k.fake.store = "overlay2"
	k.settle()
	for range maxRounds + 1 {
		if err := os.RemoveAll(h.path(dockerHosts)); err != nil {
			t.Fatal(err)
		}
		k.settle()
	}
	if err := os.Remove(h.path(dockerJSON)); err != nil {
		t.Fatal(err)
	}
	_, last := k.settle()
	if !slices.Equal(last.Lost, []string{hubHosts}) {
		t.Errorf("lost %q", last.Lost)
	}
	if err := neverAlone(h); err != nil {
		t.Error(err)
	}
}

func TestAnEngineThatComesIsServedAndOneThatGoesIsGivenBack(t *testing.T) {
	h := host(t, map[string]string{"/etc/hostname": "h"})
	h.live = true
	k := keep(t, h, desired("docker.io"))
	_, out := k.settle()
	if len(out.Changes) != 0 {
		t.Fatalf("%+v", out.Changes)
	}
	contains(t, strings.Join(out.Watch, "\n")+"\n", "/usr/bin/containerd\n", "/usr/bin/dockerd\n", homes[0].folder+"\n")
	before := h.snapshot(t)
	if err := os.MkdirAll(h.path("/usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path("/usr/bin/containerd"), nil, 0o755); err != nil { // its version is known
		t.Fatal(err)
	}
	k.settle()
	contains(t, h.get(t, containerdHosts+"/docker.io/hosts.toml"), ourHost)
	if err := os.RemoveAll(h.path("/usr")); err != nil {
		t.Fatal(err)
	}
	k.settle()
	sameTree(t, before, h.snapshot(t))
}

// What was asked for once, by hand, is not taken back by who was not asked for it.
func TestARestartThatWasAskedForOnceStays(t *testing.T) {
	for version, config := range map[string]string{
		"1.7.34": "version = 2\n" + runcV2,
		"2.2.7":  "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d:/b\"\n",
		"2.3.4":  "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
	} {
		t.Run(version, func(t *testing.T) {
			h := host(t, map[string]string{containerdConfig: config, "/etc/containerd/conf.d/": ""})
			h.Versions[Containerd] = version
			before := h.snapshot(t)
			fake := &fakeDockerd{host: h}
			h.signaler = fake
			h.apply(t, restarting())
			after := h.snapshot(t)
			if plan := h.plan(t, containerdOnly("r.example")); len(plan.Changes)+len(plan.Signals())+len(plan.Refused) != 0 || notes(plan) != "" || plan.Engines[1].Mirror != "hosts.toml" {
				t.Errorf("%+v\n%s", plan, notes(plan))
			}
			k := keep(t, h, containerdOnly("r.example"))
			if _, last := k.settle(); len(last.Changes) != 0 || last.Again != 0 {
				t.Errorf("%+v", last)
			}
			sameTree(t, after, h.snapshot(t))
			if fake.restarts != 1 || k.fake.restarts != 0 {
				t.Errorf("%d and %d restarts", fake.restarts, k.fake.restarts)
			}
			k.want.Registries = append(k.want.Registries, "more.example") // which needs no restart
			k.settle()
			contains(t, h.get(t, rFolder+"/../more.example/hosts.toml"), ourHost)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestAnEngineThatWasNamedOnceStays(t *testing.T) {
	h := host(t, map[string]string{"/etc/": ""})
	before := h.snapshot(t)
	h.live = true // in a tree the folder that is made would be enough to find it
	named := *h
	named.Present = []string{Docker}
	want := desired("docker.io")
	want.Leave = []string{Containerd}
	if _, err := named.try(t, want); err != nil {
		t.Fatal(err)
	}
	after := h.snapshot(t)
	contains(t, h.get(t, hubHosts), ourHost)
	k := keep(t, h, desired("docker.io"))
	k.settle()
	sameTree(t, after, h.snapshot(t))
	k.want.Registries = append(k.want.Registries, "r.example")
	k.settle()
	contains(t, h.get(t, dockerHosts+"/r.example/hosts.toml"), ourHost)
	// Until it is to be configured no more.
	k.want.Engines = []string{Containerd}
	h.Present = []string{Containerd}
	k.settle()
	h.missing(t, dockerHosts)
	h.Present = nil
	k.want = desired("docker.io")
	k.settle()
	h.missing(t, dockerHosts)
	h.get(t, containerdHosts+"/docker.io/hosts.toml")
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestAFaultIsTriedAgainAndAgainButNotAtOnce(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
	k := keep(t, h, dockerOnly())
	h.step = failing("write", dockerJSON, unix.ENOSPC)
	var last time.Duration
	for range 20 {
		out, err := k.Round(context.Background(), k.want)
		if err == nil || out.Again < last || out.Again == 0 || out.Again > retryLast {
			t.Fatalf("again in %v after %v: %v", out.Again, last, err)
		}
		last = out.Again
	}
	if last != retryLast {
		t.Errorf("at last every %v", last)
	}
	h.step = nil
	k.settle()
	contains(t, h.get(t, dockerJSON), ourURL)
}

func TestWhoeverHasTheLockIsWaitedFor(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	k := keep(t, h, dockerOnly())
	tree, err := hostfs.Open(h.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	unlock, err := tree.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if out := k.round(); len(out.Written) != 0 || out.Again != retryFirst {
		t.Errorf("%+v", out)
	}
	if err := unlock.Close(); err != nil {
		t.Fatal(err)
	}
	k.settle()
	contains(t, h.get(t, dockerJSON), ourURL)
}

func TestABrokenFileIsLeftUntilItIsWhole(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{"})
	k := keep(t, h, dockerOnly())
	if _, out := k.settle(); len(out.Refused) != 1 || h.get(t, dockerJSON) != "{" {
		t.Errorf("refused %v", out.Refused)
	}
	h.put(t, dockerJSON, "{}")
	k.settle()
	contains(t, h.get(t, dockerJSON), ourURL)
	if fmt.Sprint(k.round().Refused) != "[]" {
		t.Error("still refused")
	}
}
