package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// keeping are rounds whose clock the test sets.
type keeping struct {
	*testing.T
	*fakeHost
	*rounds
	want  engine.Desired
	later time.Duration
}

// keep returns rounds of a host with Docker and containerd of some versions.
func keep(t *testing.T, docker, containerd string, files map[string]string, want engine.Desired) *keeping {
	t.Helper()
	fake := &fakeHost{root: t.TempDir(), store: "overlay2", containerd: true}
	for name, text := range files {
		at := fake.path(name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := &hostconfig.Host{Root: fake.root, Versions: map[string]string{engine.Docker: docker, engine.Containerd: containerd}, Running: fake}
	k := &keeping{T: t, fakeHost: fake, rounds: newRounds(h), want: want}
	k.rounds.now = func() time.Time { return time.Now().Add(k.later) }
	return k
}

func dockerOnly() engine.Desired {
	return engine.Desired{Mirror: ourMirror, Registries: []string{"docker.io"}, Engines: []string{engine.Docker}}
}

func (k *keeping) put(name, text string) {
	k.Helper()
	if err := os.WriteFile(k.path(name), []byte(text), 0o644); err != nil {
		k.Fatal(err)
	}
}

func (k *keeping) round() round {
	k.Helper()
	out, err := k.run(context.Background(), k.want)
	if err != nil {
		k.Fatal(err)
	}
	return out
}

// settle has rounds until nothing is waited for, as the watching service does, and returns the time
// that it took.
func (k *keeping) settle() (took time.Duration, last round) {
	k.Helper()
	for range 100 {
		if last = k.round(); last.again == 0 && len(last.Written)+len(last.Restored) == 0 {
			return took, last
		}
		took += last.again
		k.later += last.again
	}
	k.Fatal("it never settles")
	return
}

func (k *keeping) configured() bool { return strings.Contains(k.read(daemonJSON), ourMirror) }

func TestRewrittenFileIsRestoredOnceTheOtherProgramIsDone(t *testing.T) {
	for name, text := range map[string]string{"rewritten": `{"icc": true}`, "emptied": "", "removed": "-"} {
		t.Run(name, func(t *testing.T) {
			k := keep(t, "26.1.5", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
			k.settle()
			if text == "-" {
				if err := os.Remove(k.path(daemonJSON)); err != nil {
					t.Fatal(err)
				}
			} else {
				k.put(daemonJSON, text)
			}
			if out := k.round(); len(out.Written) != 0 || out.again <= 0 || out.again > emptied {
				t.Errorf("it does not wait for the other program to end: wrote %q, again in %v", out.Written, out.again)
			}
			reloads := k.count()
			took, last := k.settle()
			if took > 2*time.Second || k.count() != reloads+1 || len(last.Changes) != 0 || len(last.lost) != 0 {
				t.Errorf("after %v and %d reloads: %+v", took, k.count()-reloads, last)
			}
			if !k.configured() || !strings.Contains(k.read(daemonJSON), strings.Trim(text, "{}-")) {
				t.Errorf("got %s", k.read(daemonJSON))
			}
			k.later += 24 * time.Hour
			if _, last := k.settle(); len(last.Written) != 0 {
				t.Errorf("wrote %q again", last.Written)
			}
		})
	}
}

func TestFileIsLeftToAProgramThatKeepsRewritingIt(t *testing.T) {
	k := keep(t, "20.10.24", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.settle()
	var pauses []time.Duration
	for range 3 * maxRounds {
		k.put(daemonJSON, "{}")
		took, last := k.settle()
		if len(last.lost) > 0 {
			break
		}
		pauses = append(pauses, took)
	}
	if len(pauses) != maxRounds {
		t.Errorf("put back %d times", len(pauses))
	}
	// The file's own time does not know of the test's clock: each pause is counted from the one before
	// it, and the last is half of 250 ms doubled nine times.
	if !slices.IsSorted(pauses[1:]) || pauses[len(pauses)-1] < time.Minute {
		t.Errorf("no longer pause each time: %v", pauses)
	}
	reloads := k.count()
	for range 5 {
		k.later += time.Hour
		out := k.round()
		if !slices.Equal(out.lost, []string{"/" + daemonJSON}) || out.again != 0 || k.count() != reloads || k.read(daemonJSON) != "{}" {
			t.Fatalf("not given up: %+v", out)
		}
	}
	// Once other things are wanted, this file is changed again too.
	k.want.Mirror = "http://127.0.0.1:306"
	k.settle()
	if !strings.Contains(k.read(daemonJSON), k.want.Mirror) {
		t.Errorf("got %s", k.read(daemonJSON))
	}
}

func TestOldConflictIsForgotten(t *testing.T) {
	k := keep(t, "20.10.24", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.settle()
	for range 3 * maxRounds { // once a day
		k.later += 24 * time.Hour
		k.put(daemonJSON, "{}")
		if _, last := k.settle(); len(last.lost) > 0 {
			t.Fatal("given up")
		}
	}
}

func TestContainerdIsNotRestartedForAConflict(t *testing.T) {
	want := engine.Desired{Mirror: ourMirror, Registries: []string{"r.example"}, Engines: []string{engine.Containerd}, RestartContainerd: true}
	k := keep(t, "20.10.24", "1.7.34", map[string]string{configTOML: "version = 2\n"}, want)
	k.settle()
	for range 10 {
		k.put(configTOML, "version = 2\n")
		k.settle()
	}
	if k.restarts != 1+maxRestarts {
		t.Errorf("%d restarts", k.restarts)
	}
	if !strings.Contains(k.read("etc/containerd/certs.d/r.example/hosts.toml"), ourMirror) {
		t.Error("the conflict kept other files from being written")
	}
}

// Another program keeps removing a hosts.toml that registry-mirrors needs, which must not be written
// meanwhile.
func TestChangeWaitsForTheChangeThatItNeeds(t *testing.T) {
	k := keep(t, "28.5.2", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.settle()
	for range maxRounds + 1 {
		if err := os.RemoveAll(k.path("etc/docker/certs.d")); err != nil {
			t.Fatal(err)
		}
		k.settle()
	}
	if err := os.Remove(k.path(daemonJSON)); err != nil {
		t.Fatal(err)
	}
	_, last := k.settle()
	if !slices.Equal(last.lost, []string{"/etc/docker/certs.d/docker.io/hosts.toml"}) {
		t.Errorf("lost %q", last.lost)
	}
	if k.configured() {
		t.Error("a loopback mirror without hosts.toml: TLS to Docker Hub is not verified")
	}
}

func TestFailedRoundIsTriedAgainAfterLongerAndLongerWaits(t *testing.T) {
	k := keep(t, "20.10.24", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.deaf = errors.New("no such job")
	var last time.Duration
	for range 20 {
		out, err := k.run(context.Background(), k.want)
		if err == nil || out.again < last || out.again == 0 || out.again > retryLast {
			t.Fatalf("again in %v after %v: %v", out.again, last, err)
		}
		last = out.again
	}
	if last != retryLast {
		t.Errorf("at last every %v", last)
	}
	k.deaf = nil
	k.settle()
	if !slices.Equal(k.mirrors, []string{ourMirror}) {
		t.Errorf("in force %q", k.mirrors)
	}
}

func TestRoundIsTriedAgainWhileAnotherSidemirrorHasTheLock(t *testing.T) {
	k := keep(t, "20.10.24", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	tree, err := hostfs.Open(k.root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	unlock, err := tree.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if out := k.round(); len(out.Written) != 0 || out.again != retryFirst {
		t.Errorf("%+v", out)
	}
	if err := unlock.Close(); err != nil {
		t.Fatal(err)
	}
	k.settle()
	if !k.configured() {
		t.Errorf("got %s", k.read(daemonJSON))
	}
}

func TestInvalidFileIsLeftAloneUntilItIsValid(t *testing.T) {
	k := keep(t, "20.10.24", "2.1.9", map[string]string{daemonJSON: "{"}, dockerOnly())
	if _, out := k.settle(); len(out.Refused) != 1 || k.read(daemonJSON) != "{" {
		t.Errorf("refused %v", out.Refused)
	}
	k.put(daemonJSON, "{}")
	k.settle()
	if !k.configured() || len(k.round().Refused) != 0 {
		t.Errorf("got %s", k.read(daemonJSON))
	}
}

func TestUnitsThatSystemdHasNotReadAgainAreLookedAtSoonAndThenLessOften(t *testing.T) {
	var r rounds
	var waits []time.Duration
	for _, outdated := range []bool{false, true, true, true, true, true, true, true, false, true} {
		waits = append(waits, r.untilRead(outdated)/time.Second)
	}
	if want := []time.Duration{0, 1, 2, 4, 8, 16, 30, 30, 0, 1}; !slices.Equal(waits, want) {
		t.Errorf("%d seconds, want %d", waits, want)
	}
}
