package hostconfig

import (
	"bufio"
	"cmp"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/journal"
)

// killsEnv is how many SIGKILLs at random instants the test sends. Each step is tried once by
// TestARunKilledAtAnyStepIsFinishedOrUndone.
const killsEnv = "SIDEMIRROR_TEST_KILLS"

// shoot runs the victim and kills it after a random part of longest. It reports whether the kill was
// in time.
func shoot(t *testing.T, root, what string, longest time.Duration) (took time.Duration, killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimRoot+"="+root, victimStep+"=0", victimDoes+"="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	began := time.Now()
	if longest > 0 {
		time.Sleep(rand.N(longest)) // the random instant
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	took = time.Since(began)
	if err == nil {
		return took, false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v", what, err)
	}
	return took, true
}

func TestARunKilledAtARandomInstantIsFinishedOrUndone(t *testing.T) {
	kills, err := strconv.Atoi(cmp.Or(os.Getenv(killsEnv), "40"))
	if err != nil {
		t.Fatal(err)
	}
	model := killTree(t)
	whole := map[string]map[string]string{"revert": model.snapshot(t)}
	longest, _ := shoot(t, model.Root, "apply", 0)
	whole["apply"] = timeless(model.snapshot(t))
	late, half := 0, 0
	for n := 0; n < kills && late < 20*kills; {
		h := killTree(t)
		what := []string{"apply", "revert"}[rand.IntN(2)]
		if what == "revert" {
			if err := killDo(h, "apply"); err != nil {
				t.Fatal(err)
			}
		}
		if _, killed := shoot(t, h.Root, what, longest); !killed {
			late++
		} else {
			n++
			if _, err := os.Stat(h.path(journal.Folder)); err == nil {
				half++
			}
			next := []string{"apply", "revert"}[rand.IntN(2)]
			if err := killDo(h, next); err != nil {
				t.Fatalf("%s after a killed %s: %v", next, what, err)
			}
			now := h.snapshot(t)
			if next == "apply" {
				now = timeless(now)
			}
			sameTree(t, whole[next], now)
			if t.Failed() {
				t.Fatalf("%s after a killed %s", next, what)
			}
		}
		if err := os.RemoveAll(h.Root); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills within %v, %d of them with a journal on disk; %d came too late", kills, longest, half, late)
	if kills >= 40 && half == 0 {
		t.Error("no kill hit a change that was under way")
	}
}
