package oracle

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	oldReference "github.com/containers/image/v5/docker/reference"
	oldRegistries "github.com/containers/image/v5/pkg/sysregistriesv2"
	oldTypes "github.com/containers/image/v5/types"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

const address = "127.0.0.1:305"

// registries are those that sidemirror mirrors here.
var registries = []string{"docker.io", "quay.io", "reg.test", "reg.test:5000", "a.b.test"}

// references are pulled, by tag and by digest.
var references = func() (list []string) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, name := range []string{
		"docker.io/library/redis", "docker.io/grafana/loki", "quay.io/podman/hello", "reg.test/app", "reg.test/team/app",
		"reg.test:5000/app", "reg.test:8443/app", "reg.test:443/app", "docker.io:443/library/redis", "a.b.test/app", "c.b.test/app", "other.test/app", "corp.test/hub/library/redis",
	} {
		list = append(list, name+":v1", name+digest)
	}
	return list
}()

// source is one registry that the library asks.
type source struct {
	Reference, Namespace, PullFromMirror string
	Insecure                             bool
}

// outcome is what the library does with a reference.
type outcome struct {
	Sources []source
	Blocked bool
	Err     string // the reference or the configuration cannot be used
}

// generation is one generation of the library.
type generation struct {
	podman string
	ask    func(root, ref string) outcome
}

var generations = map[string]generation{
	"5": {"5.4.2", func(root, ref string) (o outcome) {
		sys := &oldTypes.SystemContext{RootForImplicitAbsolutePaths: root}
		named, err := oldReference.ParseNamed(ref)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		r, err := oldRegistries.FindRegistry(sys, ref)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		if r == nil {
			r = &oldRegistries.Registry{Endpoint: oldRegistries.Endpoint{Location: ref}, Prefix: ref}
		}
		list, err := r.PullSourcesFromReference(named)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		for _, s := range list {
			o.Sources = append(o.Sources, source{s.Reference.String(), "", s.Endpoint.PullFromMirror, s.Endpoint.Insecure})
		}
		o.Blocked = r.Blocked
		return o
	}},
	"6": {"6.0.0", func(root, ref string) (o outcome) {
		sys := &types.SystemContext{RootForImplicitAbsolutePaths: root}
		named, err := reference.ParseNamed(ref)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		r, err := sysregistriesv2.FindRegistry(sys, ref)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		if r == nil {
			r = &sysregistriesv2.Registry{Endpoint: sysregistriesv2.Endpoint{Location: ref}, Prefix: ref}
		}
		list, err := r.PullSourcesFromReference(named)
		if err != nil {
			return outcome{Err: err.Error()}
		}
		for _, s := range list {
			o.Sources = append(o.Sources, source{s.Reference.String(), s.Endpoint.NamespaceProxy, s.Endpoint.PullFromMirror, s.Endpoint.Insecure})
		}
		o.Blocked = r.Blocked
		return o
	}},
}

// askAll asks the library anew for all references.
func (g generation) askAll(root string) map[string]outcome {
	oldRegistries.InvalidateCache()
	sysregistriesv2.InvalidateCache()
	all := make(map[string]outcome)
	for _, ref := range references {
		all[ref] = g.ask(root, ref)
	}
	return all
}

// tree is every file of a host by its name.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[name] = "folder"
			return err
		}
		data, err := os.ReadFile(name)
		all[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// memory is a folder in memory if there is such a file system: apply syncs each file.
func memory(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "oracle")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	at := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// dialect makes configurations of an administrator.
type dialect struct{ *rand.Rand }

func (d dialect) one(list ...string) string { return list[d.IntN(len(list))] }
func (d dialect) often(percent int) bool    { return d.IntN(100) < percent }

// entry is a [[registry]] table, mostly a valid one.
func (d dialect) entry() string {
	location := d.one("docker.io", "docker.io/library", "quay.io", "reg.test", "reg.test:5000", "reg.test/team", "a.b.test", "corp.test/hub", "other.test", "reg.test:443", "docker.io/")
	text := "[[registry]]\n"
	switch {
	case d.often(10):
		text += fmt.Sprintf("prefix = %q\n", d.one("*.b.test", "*.test", "*.io"))
		if d.often(50) {
			text += fmt.Sprintf("location = %q\n", location)
		}
	case d.often(30):
		text += fmt.Sprintf("prefix = %q\nlocation = %q\n", d.one("docker.io", "docker.io/library", "reg.test", "corp.test", "other.test"), location)
	default:
		text += fmt.Sprintf("location = %q\n", location)
	}
	for _, key := range []string{"insecure", "blocked", "mirror-by-digest-only"} {
		if d.often(15) {
			text += key + " = true\n"
		}
	}
	if d.often(3) {
		text += "unknown = true\n"
	}
	for range d.IntN(3) {
		text += fmt.Sprintf("[[registry.mirror]]\nlocation = %q\n", d.one("mirror.corp", "mirror.corp:8080/hub", "10.0.0.1/x/y", address+"/docker.io"))
		if d.often(30) {
			text += "insecure = true\n"
		}
		if d.often(20) {
			text += fmt.Sprintf("pull-from-mirror = %q\n", d.one("all", "digest-only", "tag-only"))
		}
	}
	return text
}

func (d dialect) file() string {
	text := d.one("", "# Managed by hand\n", "unqualified-search-registries = [\"docker.io\"]\n", "short-name-mode = \"enforcing\"\n[aliases]\n\"redis\" = \"docker.io/library/redis\"\n")
	for range d.IntN(4) {
		text += d.entry()
	}
	return text
}

// TestMirrorsInForceAreSidemirrorAndThenTheirs makes many configurations of administrators. After apply
// the library must ask what it asked before, in that order and with those settings, and sidemirror
// before all else or not at all; after revert every byte must be as it was.
func TestMirrorsInForceAreSidemirrorAndThenTheirs(t *testing.T) {
	for name, g := range generations {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			mirrored, unusable := 0, 0
			for seed := range uint64(400) {
				d := dialect{rand.New(rand.NewPCG(seed, 1))}
				root := memory(t)
				put(t, root, "usr/bin/podman", "")
				for _, file := range []string{
					"etc/containers/registries.conf", "etc/containers/registries.conf.d/00-early.conf", "etc/containers/registries.conf.d/50-late.conf",
					"usr/share/containers/registries.conf", "usr/share/containers/registries.conf.d/50-late.conf", "etc/containers/registries.rootful.conf.d/10-root.conf",
				} {
					if d.often(45) {
						put(t, root, file, d.file())
					}
				}
				before, was := g.askAll(root), tree(t, root)
				h := &hostconfig.Host{Root: root, Versions: map[string]string{"podman": g.podman}}
				plan, err := hostconfig.Make(context.Background(), h, engine.Desired{Mirror: "http://" + address, Registries: registries, Engines: []string{engine.Podman}})
				if err != nil {
					t.Fatal(err)
				}
				_, applyErr := hostconfig.Apply(context.Background(), h, plan)
				after := g.askAll(root)
				for _, ref := range references {
					if before[ref].Err != "" {
						unusable++
					}
					if check(t, g, seed, ref, before[ref], after[ref], files(was)) {
						mirrored++
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d: %v\n%s", seed, applyErr, show(tree(t, root)))
				}
				if _, err := hostconfig.Revert(context.Background(), h, "http://"+address); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if now := tree(t, root); !reflect.DeepEqual(now, was) {
					t.Fatalf("seed %d: after revert:\n%s\nand before apply:\n%s", seed, show(now), show(was))
				}
			}
			if mirrored < 2000 || unusable < 50 {
				t.Errorf("of the configurations %d references came to be mirrored, and %d could not be used at all: they show too little", mirrored, unusable)
			}
			t.Logf("%d references were mirrored, %d could not be used before", mirrored, unusable)
		})
	}
}

// files tells whether an administrator has any file.
func files(was map[string]string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(was)), func(name string) bool { return strings.HasSuffix(name, ".conf") })
}

// check compares one reference before and after apply. It reports whether sidemirror is asked first.
func check(t *testing.T, g generation, seed uint64, ref string, before, after outcome, configured bool) (mirrored bool) {
	t.Helper()
	isOurs := func(s source) bool { return strings.HasPrefix(s.Reference, address+"/") }
	wanted := slices.ContainsFunc(registries, func(r string) bool { return strings.HasPrefix(ref, r+"/") })
	if len(after.Sources) > 0 && isOurs(after.Sources[0]) && !slices.ContainsFunc(before.Sources, isOurs) {
		mirrored = true
		first := after.Sources[0]
		after.Sources = after.Sources[1:]
		if !first.Insecure || first.PullFromMirror != "" {
			t.Errorf("podman %s, seed %d: %s: sidemirror is %+v", g.podman, seed, ref, first)
		}
		last := strings.Replace(after.Sources[len(after.Sources)-1].Reference, ":5000/", "__5000/", 1)
		if first.Reference != address+"/"+last {
			t.Errorf("podman %s, seed %d: %s: sidemirror is asked for %s, and the registry for %s", g.podman, seed, ref, first.Reference, last)
		}
	}
	others := func(list []source) []source {
		return slices.DeleteFunc(slices.Clone(list), isOurs)
	}
	if before.Blocked != after.Blocked || before.Err != after.Err || !slices.Equal(others(before.Sources), others(after.Sources)) {
		t.Errorf("podman %s, seed %d: %s:\nbefore %+v\nafter  %+v", g.podman, seed, ref, before, after)
	}
	if !configured && wanted != mirrored {
		t.Errorf("podman %s, seed %d: %s is mirrored: %v; want %v", g.podman, seed, ref, mirrored, wanted)
	}
	return mirrored
}

func show(all map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasSuffix(name, ".conf") {
			fmt.Fprintf(&b, "---- %s\n%s", name, all[name])
		}
	}
	return b.String()
}
