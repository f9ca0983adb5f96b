package hostconfig

import (
	"bytes"
	"context"
	"fmt"
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
	if name := p.binary(e); p.tree.dir == "/" && name != "" {
		if v := findVersion(runBounded(ctx, name, "--version")); v != "" {
			return v
		}
	}
	f, err := p.tree.read("/var/lib/dpkg/status")
	if err != nil {
		return ""
	}
	return packageVersion(f.data, e.packages())
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

// runBounded runs a program of the host's and answers with the first 4 KiB of
// what it prints, or nothing if that takes more than 5 s.
func runBounded(ctx context.Context, name string, args ...string) string {
	out, err := run(ctx, 5*time.Second, name, args...)
	if err != nil {
		return ""
	}
	return out
}

// runQuiet runs systemctl.
func runQuiet(ctx context.Context, limit time.Duration, args ...string) error {
	out, err := run(ctx, limit, "/usr/bin/systemctl", args...)
	if err != nil {
		return fmt.Errorf("systemctl %s: %w %s", args[0], err, strings.TrimSpace(out))
	}
	return nil
}

func run(ctx context.Context, limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := capped{left: 4096}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + strings.Join(binFolders, ":"), "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.String(), err
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

const mirrorFlag = "--registry-mirror"

// flagMirrors are the mirrors that dockerd is given on its command line: the
// running one's, else the one that systemd would start.
func (d *docker) flagMirrors() []string {
	for _, pidfile := range []string{"/run/docker.pid", "/var/run/docker.pid"} {
		if pid := d.dockerd(pidfile); pid != "" {
			if f, err := d.tree.read("/proc/" + pid + "/cmdline"); err == nil {
				return mirrorsIn(strings.Split(string(f.data), "\x00"))
			}
		}
	}
	var words []string
	for _, name := range d.unitFiles() {
		f, err := d.tree.read(name)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(f.data), "\n") {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
				words = append(words, strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\"'", r) })...)
			}
		}
	}
	return mirrorsIn(words)
}

// dockerd is the process that pidfile names, if that is a dockerd: the number may
// be somebody else's by now.
func (d *docker) dockerd(pidfile string) string {
	f, err := d.tree.read(pidfile)
	if err != nil {
		return ""
	}
	pid := strings.TrimSpace(string(f.data))
	if _, err := strconv.ParseUint(pid, 10, 31); err != nil {
		return ""
	}
	exe, err := d.tree.root.Readlink(local("/proc/" + pid + "/exe"))
	if err != nil || path.Base(strings.TrimSuffix(exe, " (deleted)")) != "dockerd" {
		return ""
	}
	return pid
}

// unitFiles are where distributions and kubespray put dockerd's flags.
func (d *docker) unitFiles() []string {
	names := []string{"/etc/default/docker", "/etc/sysconfig/docker"}
	for _, folder := range []string{"/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"} {
		names = append(names, folder+"/docker.service")
		list, err := d.tree.names(folder + "/docker.service.d")
		if err != nil {
			continue
		}
		for _, item := range list {
			names = append(names, path.Join(folder, "docker.service.d", item.Name()))
		}
	}
	return names
}

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
