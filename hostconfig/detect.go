package hostconfig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// version is major, minor; the zero value is unknown.
type version struct{ major, minor int }

var versionText = regexp.MustCompile(`(?:^|[ v:])(\d{1,4})\.(\d{1,4})\.(\d{1,4})`)

// findVersion takes "28.5.2" out of what a program or a package database says:
// "Docker version 28.5.2, build …", "5:28.5.2-1~debian.12", "… v2.1.9 …".
func findVersion(text string) string {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return strings.Join(m[1:], ".")
}

func parseVersion(text string) version {
	parts := strings.Split(findVersion(text), ".")
	if len(parts) < 2 {
		return version{}
	}
	// findVersion let only digits through.
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return version{major, minor}
}

func (v version) unknown() bool { return v == version{} }

// atLeast is false for an unknown version.
func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

// version finds an engine's version: "" where it cannot. Nothing is executed from
// a tree that is not the running host's.
func (p *planner) version(ctx context.Context, e engine) string {
	if v, ok := p.host.Versions[e.name()]; ok {
		return findVersion(v)
	}
	if name := p.binary(e); p.host.running() && name != "" {
		if v := p.host.askVersion(ctx, name); v != "" {
			return v
		}
	}
	f, err := p.tree.Read("/var/lib/dpkg/status")
	if err != nil {
		return ""
	}
	return packageVersion(f.Data, e.packages())
}

// askVersion executes a program for its version, once for each program: watch looks
// at the host again and again.
func (h *Host) askVersion(ctx context.Context, name string) string {
	name = path.Join(h.Root, name)
	info, err := os.Stat(name)
	if err != nil {
		return ""
	}
	key := fmt.Sprint(name, info.Size(), info.ModTime())
	if v, ok := h.asked[key]; ok {
		return v
	}
	v := findVersion(runBounded(ctx, name, "--version"))
	h.remember(key, v)
	return v
}

// remember keeps what a program said. What it said of older files goes some time.
func (h *Host) remember(key, said string) {
	if h.asked == nil || len(h.asked) > 16 {
		h.asked = make(map[string]string)
	}
	h.asked[key] = said
}

// packageVersion looks packages up in dpkg's status file, deb-control(5).
func packageVersion(status []byte, packages []string) string {
	for stanza := range bytes.SplitSeq(status, []byte("\n\n")) {
		fields := make(map[string]string)
		for line := range strings.SplitSeq(string(stanza), "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				fields[key] = value
			}
		}
		if slices.Contains(packages, fields["Package"]) && strings.HasSuffix(fields["Status"], " installed") {
			return findVersion(fields["Version"])
		}
	}
	return ""
}

// runBounded runs a program of the host's and answers with its output, or nothing if
// that is above 512 KiB, if it fails, or if it takes more than 5 s.
func runBounded(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	const most = 512 << 10
	out := capped{left: most + 1}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + strings.Join(binFolders, ":"), "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil || out.Len() > most {
		return ""
	}
	return out.String()
}

// capped keeps the first bytes and swallows the rest, so that the program that
// writes them is not blocked.
type capped struct {
	strings.Builder
	left int
}

func (c *capped) Write(b []byte) (int, error) {
	n := min(len(b), c.left)
	c.left -= n
	c.Builder.Write(b[:n])
	return len(b), nil
}

// commandLine is how the host's own engine is started: the running one's arguments,
// else the words in the files that systemd would start it by.
func (p *planner) commandLine(running *process, unit string, more ...string) []string {
	if running != nil {
		return running.args
	}
	var words []string
	for _, name := range append(more, p.unitFiles(unit)...) {
		f, err := p.tree.Read(name)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(f.Data), "\n") {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
				words = append(words, strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\"'", r) })...)
			}
		}
	}
	return words
}

// unitFiles are where systemd reads a unit, and what is laid over it.
func (p *planner) unitFiles(unit string) []string {
	var names []string
	for _, folder := range []string{"/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"} {
		main := path.Join(folder, unit)
		names = append(names, main)
		list, err := p.tree.Names(main + ".d")
		if err != nil {
			continue
		}
		for _, item := range list {
			names = append(names, path.Join(main+".d", item.Name()))
		}
	}
	return names
}

const mirrorFlag = "--registry-mirror"

func mirrorsIn(words []string) []string {
	var mirrors []string
	for i, word := range words {
		// In a unit file the flag may stand in a variable: Environment="OPTS=--registry-mirror=…".
		_, value, ok := strings.Cut(word, mirrorFlag)
		switch {
		case ok && strings.HasPrefix(value, "="):
			mirrors = append(mirrors, value[1:])
		case ok && value == "" && i+1 < len(words):
			mirrors = append(mirrors, words[i+1])
		}
	}
	return mirrors
}
