package hostconfig

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// The victim is this test binary, run once more: it applies or reverts on the tree
// in victimRoot and kills itself with SIGKILL before its step number victimStep.
const (
	victimRoot = "SIDEMIRROR_TEST_VICTIM"
	victimStep = "SIDEMIRROR_TEST_STEP"
	victimDoes = "SIDEMIRROR_TEST_DOES"
)

// busyFile stands for a bind mount, so that writing in place is among the steps.
const busyFile = dockerJSON

func victim() int {
	last, err := strconv.Atoi(os.Getenv(victimStep))
	if err != nil {
		return 3
	}
	n := 0
	h := killHost(os.Getenv(victimRoot))
	busy := h.step
	h.step = func(op, path string) error {
		if n++; n == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal is there
		}
		return busy(op, path)
	}
	if last == 0 {
		fmt.Println("ready")
	}
	if err := killDo(h, os.Getenv(victimDoes)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	fmt.Println("steps", n)
	return 0
}

func killHost(root string) *Host {
	return &Host{Root: root, Versions: map[string]string{engine.Docker: "28.5.2", engine.Containerd: "1.7.34"}, step: failing("rename", busyFile, unix.EBUSY)}
}

func killDo(h *Host, what string) error {
	if what == "revert" {
		_, err := Revert(context.Background(), h, ourURL)
		return err
	}
	if h.Running = nil; what == "ask" {
		fake := running(h)
		fake.store, fake.version, fake.pull = "containerd", "28.5.2", resolver(h)
		h.Probe = true
	}
	want := desired("docker.io", "r.example:5000")
	want.RestartContainerd, want.Service, want.Helpers = true, true, true
	plan, err := Make(context.Background(), h, want)
	if err != nil {
		return err
	}
	_, err = Apply(context.Background(), h, plan)
	return err
}

// kill runs the victim. It reports whether the victim ended before the step.
func kill(t *testing.T, root, what string, step int) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimRoot+"="+root, victimStep+"="+strconv.Itoa(step), victimDoes+"="+what)
	out, err := cmd.CombinedOutput()
	if err == nil {
		scanner := bufio.NewScanner(strings.NewReader(string(out)))
		return scanner.Scan() && strings.HasPrefix(scanner.Text(), "steps")
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s, step %d: %v\n%s", what, step, err, out)
	}
	return false
}

func killTree(t *testing.T) *Host {
	h := host(t, map[string]string{
		dockerJSON:               "{\n  \"debug\": true\n}\n",
		hubHosts:                 "server = \"https://registry-1.docker.io\"\n" + theirs,
		containerdConfig:         "version = 2\n" + runcV2,
		"/etc/docker/other.json": "{}",
		ownService:               "[Service]\nExecStart=/usr/bin/sidemirror serve\n",
	})
	return killHost(h.Root)
}

func TestARunKilledAtAnyStepIsFinishedOrUndone(t *testing.T) {
	model := killTree(t)
	whole := map[string]map[string]string{"revert": model.snapshot(t)}
	if err := killDo(model, "apply"); err != nil {
		t.Fatal(err)
	}
	whole["apply"] = timeless(model.snapshot(t))
	asked, probes, busy := killTree(t), 0, failing("rename", busyFile, unix.EBUSY)
	asked.step = func(op, name string) error {
		if strings.Contains(name, probeDomain) {
			probes++
		}
		return busy(op, name)
	}
	if err := killDo(asked, "ask"); err != nil {
		t.Fatal(err)
	}
	if probes == 0 {
		t.Error("there are no steps for a probe")
	}
	whole["ask"] = timeless(asked.snapshot(t))
	for _, what := range []string{"apply", "ask", "revert"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for step, done := 1, false; !done; step++ {
				h := killTree(t)
				if what == "revert" {
					if err := killDo(h, "apply"); err != nil {
						t.Fatal(err)
					}
				}
				done = kill(t, h.Root, what, step)
				next := what
				if what == "revert" {
					next = "apply"
				}
				if step%2 == 0 {
					if err := killDo(h, next); err != nil {
						t.Fatalf("%s after step %d: %v", next, step, err)
					}
					sameTree(t, whole[next], timeless(h.snapshot(t)))
				}
				if err := killDo(h, "revert"); err != nil {
					t.Fatalf("revert after step %d: %v", step, err)
				}
				sameTree(t, whole["revert"], h.snapshot(t))
				if t.Failed() {
					t.Fatalf("after step %d", step)
				}
				if err := os.RemoveAll(h.Root); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// timeless leaves out times, and the content of the journal, which holds times.
func timeless(tree map[string]string) map[string]string {
	out := make(map[string]string)
	for name, text := range tree {
		fields := strings.Fields(text)
		if len(fields) > 3 && fields[2] != "->" {
			text = strings.Join([]string{fields[0], fields[1], fields[len(fields)-1]}, " ")
		}
		if strings.HasSuffix(name, "/journal.json") {
			text = ""
		}
		out[name] = text
	}
	return out
}

// A file system that fails at any step leaves whole files, the failure is reported, and revert
// restores everything once the file system works again.
func TestFailingAtAnyStepLosesNothing(t *testing.T) {
	faults := []error{unix.ENOSPC, unix.EIO, unix.EROFS}
	for _, what := range []string{"apply", "revert"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for step, failed := 1, true; failed; step++ {
				h := killTree(t)
				before := h.snapshot(t)
				if what == "revert" {
					if err := killDo(h, "apply"); err != nil {
						t.Fatal(err)
					}
				}
				n, busy := 0, h.step
				failed = false
				h.step = func(op, path string) error {
					if n++; n == step {
						failed = true
						if op == "rename folder" {
							return unix.EIO // the journal gives up its folder for EROFS: see Journal.Save
						}
						return faults[step%len(faults)]
					}
					return busy(op, path)
				}
				if err := killDo(h, what); failed && err == nil {
					t.Errorf("step %d failed and nothing was said", step)
				}
				h.step = busy
				if err := killDo(h, "revert"); err != nil {
					t.Fatalf("revert after step %d: %v", step, err)
				}
				sameTree(t, before, h.snapshot(t))
				if t.Failed() {
					t.Fatalf("after step %d", step)
				}
				if err := os.RemoveAll(h.Root); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
