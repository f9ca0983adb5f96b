package hosts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

const (
	ownTOML     = "/etc/containerd/certs.d/reg.test/hosts.toml"
	journalFile = "/var/lib/sidemirror-hosts/journal.json"
	daemonJSON  = "/etc/docker/daemon.json"

	dockerHubTOML = "/etc/docker/certs.d/docker.io/hosts.toml"
)

// obstacle is something that happens to a host after apply, and keeps revert from taking
// everything out.
type obstacle struct {
	name string
	json string // daemon.json before apply; empty for one by which Docker reads hosts.toml files

	// make makes it, and returns what clears it, or nil.
	make func(t *testing.T, r *rig) func()

	// stays are the files that revert cannot reach, with sidemirror's entry in them.
	stays []string

	// names is what revert says of them, or of what else it could not do.
	names string

	// journal says that the journal stays although no entry does.
	journal bool
}

// changing changes a file of the host's in place, and later undoes that, by what the file was
// after apply and what it is then.
func changing(name string, change func(string) string, undo func(was, now string) string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		was := r.read(t, name)
		r.rewrite(t, name, change)
		return func() {
			text := undo(was, r.read(t, name))
			if text == "" {
				r.command(t, "rm", "-r", filepath.Dir(name))
				return
			}
			r.rewrite(t, name, func(string) string { return text })
		}
	}
}

// damaging changes a file for good.
func damaging(name string, change func(string) string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		r.rewrite(t, name, change)
		return nil
	}
}

// commands runs a command on the host, and later another.
func commands(do, undo string) func(*testing.T, *rig) func() {
	return func(t *testing.T, r *rig) func() {
		r.command(t, "sh", "-c", do)
		return func() { r.command(t, "sh", "-c", undo) }
	}
}

// rewrite changes a file of the host's in place.
func (r *rig) rewrite(t *testing.T, name string, change func(string) string) {
	t.Helper()
	file := filepath.Join(r.host.Root, name)
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(change(string(data))), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a program on the host that must succeed.
func (r *rig) command(t *testing.T, line ...string) {
	t.Helper()
	if _, stderr, code, err := r.host.Run(t.Context(), line...); err != nil || code != 0 {
		t.Fatalf("%q: exit code %d, %v\n%s", line, code, err, stderr)
	}
}

func comment(text string) string { return strings.Replace(text, "{", "{\n// a note\n", 1) }

func uncomment(_, now string) string { return strings.Replace(now, "{\n// a note\n", "{", 1) }

const half = "half = [\n"

func addHalf(text string) string { return text + half }

func removeHalf(_, now string) string { return strings.TrimSuffix(now, half) }

func putBack(was, _ string) string { return was }

const hubFolder = "/etc/containerd/certs.d/docker.io"

var obstacles = []obstacle{
	{name: "none", make: func(*testing.T, *rig) func() { return nil }},
	{name: "comment in a daemon.json without sidemirror's entry", make: changing(daemonJSON, comment, uncomment)},
	{
		// The running dockerd still has the mirror and cannot take the file: without the hosts.toml
		// it would stop verifying TLS to Docker Hub.
		name: "comment in a daemon.json with sidemirror's entry", json: withoutSnapshotter, make: changing(daemonJSON, comment, uncomment),
		stays: []string{dockerHubTOML}, names: daemonJSON,
	},
	{
		name: "daemon.json cut off after sidemirror's entry", json: withoutSnapshotter,
		make:  changing(daemonJSON, func(s string) string { return s[:strings.Index(s, listen)+len(listen)] }, putBack),
		stays: []string{daemonJSON, dockerHubTOML}, names: daemonJSON + ":",
	},
	{name: "invalid TOML in a hosts.toml", make: changing(ownTOML, addHalf, removeHalf)},
	{name: "invalid TOML in a hosts.toml of sidemirror's", make: changing(hubTOML, addHalf, removeHalf)},
	{
		name: "immutable file", make: commands("chattr +i "+hubTOML, "chattr -i "+hubTOML),
		stays: []string{hubTOML}, names: hubTOML,
	},
	{
		name:  "folder mounted read-only",
		make:  commands("mount --bind "+hubFolder+" "+hubFolder+" && mount -o remount,bind,ro "+hubFolder, "umount "+hubFolder),
		stays: []string{hubTOML}, names: hubTOML,
	},
	{name: "engines gone", make: func(_ *testing.T, r *rig) func() { r.host.StopEngines(); return nil }},
	{name: "journal cut off", make: damaging(journalFile, func(s string) string { return s[:len(s)/2] })},
	{name: "journal empty", make: damaging(journalFile, func(string) string { return "" })},
	{name: "journal of another program", make: damaging(journalFile, func(string) string { return "[1, 2]\n" })},
	{
		// It may tell of files that only the later version knows, so it stays for that.
		name: "journal of a later version", names: "a newer sidemirror wrote", journal: true,
		make: damaging(journalFile, func(string) string { return "{\"version\": 99, \"entries\": {\"a\": 1}}\n" }),
	},
	{name: "journal and originals gone", make: func(t *testing.T, r *rig) func() {
		if err := os.RemoveAll(filepath.Join(r.host.Root, filepath.Dir(journalFile))); err != nil {
			t.Fatal(err)
		}
		return nil
	}},
	{name: "originals gone", make: func(t *testing.T, r *rig) func() {
		if err := os.RemoveAll(filepath.Join(r.host.Root, filepath.Dir(journalFile), "originals")); err != nil {
			t.Fatal(err)
		}
		return nil
	}},
	{name: "configuration invalid", make: changing("/etc/sidemirror/config.toml", func(s string) string { return "listen = 5\n" + s }, putBack)},
}

// Whatever happens to a host: revert takes out what it can reach and names the rest, and
// takes that out too as soon as it can.
func TestRevertTakesOutWhatItCanReach(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Sid, engine.Built}, func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		for _, o := range obstacles {
			t.Run(o.name, func(t *testing.T) {
				files := map[string]string{config: certsPath, ownTOML: fmt.Sprintf("# ours\n[host.%q]\n  capabilities = [\"pull\"]\n", own.URL)}
				if files[daemonJSON] = o.json; o.json == "" {
					files[daemonJSON] = dockerJSON(g, `"log-level": "info"`)
				}
				r := newRig(t, rigOptions{generation: g, files: files})
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				clear := o.make(t, r)
				_, stderr, code := r.run(t, "revert")
				if (code != 0) != (len(o.stays) > 0 || o.journal) {
					t.Errorf("revert: exit code %d\n%s", code, stderr)
				}
				if !strings.Contains(stderr, o.names) {
					t.Errorf("revert does not say %q:\n%s", o.names, stderr)
				}
				r.onlyStays(t, o)
				if clear != nil {
					clear()
				}
				if o.journal {
					if err := os.RemoveAll(filepath.Join(r.host.Root, filepath.Dir(journalFile))); err != nil {
						t.Fatal(err)
					}
				}
				if code != 0 {
					r.do(t, 0, "revert")
				}
				r.sameContents(t, first)
			})
		}
	})
}

// onlyStays checks that sidemirror's entry is only in the files that o says, and that there is
// no journal except for them.
func (r *rig) onlyStays(t *testing.T, o obstacle) {
	t.Helper()
	holds := map[string]bool{}
	for name, content := range r.hostsFiles(t) {
		holds[name] = strings.Contains(content, listen)
	}
	holds[daemonJSON] = strings.Contains(r.read(t, daemonJSON), listen)
	for _, name := range o.stays {
		if !holds[name] {
			t.Errorf("%s has no entry of sidemirror's any more, which this test expects to stay", name)
		}
		delete(holds, name)
	}
	for name, has := range holds {
		if has {
			t.Errorf("after revert %s still has sidemirror's entry", name)
		}
	}
	if kept := exists(filepath.Join(r.host.Root, journalFile)); kept != (len(o.stays) > 0 || o.journal) {
		t.Errorf("after revert there is a journal: %v", kept)
	}
}

// sameContents compares the files with those of before by their bytes. Without a journal
// nothing tells when a file was changed, and which folders were there.
func (r *rig) sameContents(t *testing.T, first tree) {
	t.Helper()
	last := r.takeTree(t)
	for _, difference := range first.unlike(last) {
		name, rest, _ := strings.Cut(difference, "\n")
		was, is := first[name], last[name]
		switch {
		case was != "" && is != "" && sum(was) == sum(is):
		case was == "" && strings.HasPrefix(is, "d"):
		default:
			t.Errorf("at the end %s\n%s", name, rest)
		}
	}
}

// sum is the last word of a tree's line: of a file that of its bytes.
func sum(line string) string { return line[strings.LastIndex(line, " ")+1:] }

// While another sidemirror changes the host, revert must not.
func TestRevertSaysThatAnotherSidemirrorIsAtWork(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Built}, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath}})
		first := r.takeTree(t)
		r.do(t, 0, "apply")
		applied := r.takeTree(t)
		holder := r.host.Start(t, func(output string) error {
			if !strings.Contains(output, "held") {
				return errors.New("the lock is not held")
			}
			return nil
		}, "flock", "/", "sh", "-c", "echo held; exec sleep infinity")
		_, stderr := r.do(t, 1, "revert")
		if !strings.Contains(stderr, "another") {
			t.Errorf("revert says\n%s", stderr)
		}
		r.sameTree(t, "while another one is at work", applied)
		holder.Kill()
		r.do(t, 0, "revert")
		r.sameTree(t, "after revert", first)
	})
}
