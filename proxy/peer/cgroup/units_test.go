package cgroup

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// cases reads a table of paths, each with "trusted", "container" or "other" before it. A line in
// brackets begins the paths of a list of units, "none" for a host without systemd.
func cases(t *testing.T, each func(systemd bool, units []string, want, path string)) {
	t.Helper()
	f, err := os.Open("testdata/groups.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var units []string
	systemd := true
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if list, ok := strings.CutPrefix(line, "["); ok {
			units = strings.Fields(strings.TrimSuffix(list, "]"))
			systemd = units[0] != "without-systemd"
			if !systemd {
				units = units[1:]
			}
			continue
		}
		if want, path, ok := strings.Cut(line, " "); ok {
			each(systemd, units, want, strings.TrimSpace(path))
		} else if line != "" {
			t.Fatalf("the line %q", line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestGroupsAreTrustedAsTheUnitsSay(t *testing.T) {
	count := 0
	cases(t, func(systemd bool, units []string, want, path string) {
		count++
		u := newUnits(units, systemd)
		if got := u.Include(path); got != (want == "trusted") {
			t.Errorf("%s of %v, systemd %v: included %v, want %s", path, units, systemd, got, want)
		}
		if got := OfContainer(path); got != (want == "container") {
			t.Errorf("%s: of a container %v, want %s", path, got, want)
		}
	})
	if count < 80 {
		t.Errorf("only %d groups", count)
	}
}

// What is in a container's group may have any name.
func TestNoNameInsideAContainerIsTrusted(t *testing.T) {
	cases(t, func(systemd bool, _ []string, want, path string) {
		if want != "container" {
			return
		}
		for _, below := range []string{"docker.service", "system.slice/docker.service", "user.slice/user-0.slice/session-1.scope", "init"} {
			inside := path + "/" + below
			if newUnits([]string{"default", "*", path + "/*", inside}, systemd).Include(inside) {
				t.Errorf("%s is trusted", inside)
			}
		}
	})
}

func TestEveryDefaultUnitIsTrustedInAnySlice(t *testing.T) {
	u := newUnits([]string{"default"}, true)
	for _, pattern := range engines {
		name := strings.ReplaceAll(pattern, "*", "agent")
		for _, slice := range []string{"", "/system.slice", "/runtime.slice", "/system.slice/system-engines.slice"} {
			if !u.Include(slice + "/" + name) {
				t.Errorf("%s/%s is not trusted", slice, name)
			}
		}
	}
}

func TestAnEmptyListTrustsNoGroup(t *testing.T) {
	cases(t, func(systemd bool, _ []string, _, path string) {
		if newUnits(nil, systemd).Include(path) {
			t.Errorf("%s is trusted", path)
		}
	})
}
