package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tools are the other programs, as setup.sh installs them.
type tools struct{ nginx, wrk, registry string }

func findTools() (tools, error) {
	var t tools
	var missing []error
	for _, w := range []struct {
		to   *string
		name string
	}{{&t.nginx, "nginx"}, {&t.wrk, "wrk"}} {
		path, err := exec.LookPath(w.name)
		if err != nil { // Debian keeps daemons where ordinary users do not look
			path, err = exec.LookPath("/usr/sbin/" + w.name)
		}
		*w.to = path
		missing = append(missing, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return t, err
	}
	t.registry = filepath.Join(cache, "sidemirror-bench/bin/registry")
	_, err = os.Stat(t.registry)
	if err := errors.Join(append(missing, err)...); err != nil {
		return t, fmt.Errorf("something to compare with is missing; run bench/setup.sh: %w", err)
	}
	return t, nil
}

// build makes the binary that users get, in dir, with more flags.
func build(ctx context.Context, dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "sidemirror")
	argv := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", path}, flags...)
	c := exec.CommandContext(ctx, "go", append(argv, "./cmd/sidemirror")...)
	c.Dir = ".."
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sidemirror (run this in bench/): %w\n%s", err, out)
	}
	return path, nil
}

// facts returns what the figures depend on other than the programs themselves, a line each.
func (b *bench) facts(ctx context.Context) [][2]string {
	output := func(argv ...string) string {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		first, _, _ := strings.Cut(string(out), "\n")
		if first == "" && err != nil {
			return err.Error()
		}
		return first
	}
	return [][2]string{
		{"processor", fmt.Sprintf("%s, %d cores", field("/proc/cpuinfo", "model name"), cores())},
		{"memory", field("/proc/meminfo", "MemTotal")},
		{"kernel", output("uname", "-r")},
		{"folder", b.dir + ", " + output("stat", "-f", "-c", "%T", b.dir)},
		{"load at the start", output("cut", "-d ", "-f1-3", "/proc/loadavg")},
		{"Go", output("go", "env", "GOVERSION")},
		{"sidemirror", output("git", "describe", "--always", "--dirty", "--tags")},
		{"nginx", strings.TrimPrefix(output(b.tools.nginx, "-v"), "nginx version: ")},
		{"distribution", moduleVersion(b.tools.registry)},
		{"wrk", strings.Fields(output(b.tools.wrk, "-v"))[1]},
	}
}

func cores() int {
	text, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Count("\n"+string(text), "\nprocessor")
}

// field is what follows the first "name:" of a file of /proc.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func moduleVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return info.Main.Version + ", built with " + info.GoVersion
}

// machineUse returns the processor time that all programs have used since the machine started, and
// what the hypervisor took for other machines (proc(5), /proc/stat).
func machineUse() (busy, stolen time.Duration) {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, word := range strings.Fields(first) {
		n, _ := strconv.ParseInt(word, 10, 64) // the first word is "cpu", and counts nothing
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			busy += time.Duration(n) * clockTick
		case 8:
			stolen = time.Duration(n) * clockTick
		}
	}
	return busy, stolen
}

// ownUse returns the processor time that this program has used, and all those that it started and
// that have ended.
func ownUse() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// usage is what has been used up to a moment.
type usage struct {
	at                time.Time
	busy, stolen, own time.Duration
}

func useNow() usage {
	busy, stolen := machineUse()
	return usage{time.Now(), busy, stolen, ownUse()}
}

// others returns, as a fact, the share of the processors' time that other programs have used since
// then. With more than a tenth the figures are worth little.
func (before usage) others() [2]string {
	now := useNow()
	all := time.Since(before.at) * time.Duration(cores())
	share := func(d time.Duration) float64 { return 100 * max(0, d.Seconds()) / all.Seconds() }
	return [2]string{"processors' time that others took meanwhile", fmt.Sprintf("%.0f %%, and the hypervisor %.0f %%",
		share((now.busy-before.busy)-(now.own-before.own)), share(now.stolen-before.stolen))}
}
