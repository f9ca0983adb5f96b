// Package sidemirror_test checks the structure: which folder may import which, and which file may
// import which module.
package sidemirror_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sidemirror/sidemirror"

// mayImport says, for each folder, which other folders it may import. Imports run downwards:
// cmd → daemon/* → {proxy, hostconfig}, and proxy → its folders → oci. Enter a new folder here with
// what it may import. Every folder may import internal/*, which imports nothing outside itself.
var mayImport = map[string][]string{
	"cmd/sidemirror/mirrorclient": {"proxy/oci"},
	"cmd/sidemirror":              {"cmd/sidemirror/mirrorclient", "daemon", "daemon/activity", "daemon/admin", "daemon/config", "daemon/doctor", "daemon/handover", "daemon/health", "daemon/keeper", "daemon/listener", "daemon/proxycheck", "daemon/sdnotify", "daemon/siteconfig", "daemon/state", "hostconfig", "hostconfig/buildx", "hostconfig/engine", "hostconfig/live", "proxy/cache", "proxy/cache/inventory", "proxy/credential", "proxy/credential/sealed", "proxy/oci", "proxy/shared", "proxy/visitor/users"},
	"daemon": {
		"daemon/activity", "daemon/admin", "daemon/certificate", "daemon/health", "daemon/metrics", "daemon/tracing",
		"daemon/config", "daemon/filewatch", "daemon/handover", "daemon/listener", "daemon/logging", "daemon/sdnotify", "daemon/sdnotify/sdnotifytest", "daemon/state", "daemon/web",
		"proxy", "proxy/access", "proxy/cache", "proxy/credential", "proxy/credential/dockerhelper", "proxy/credential/kubelet", "proxy/credential/program", "proxy/credential/sealed",
		"proxy/observe", "proxy/oci", "proxy/peer", "proxy/shared", "proxy/transfer", "proxy/upstream", "proxy/visitor", "proxy/visitor/users",
	},
	"daemon/activity":              {"proxy/observe", "proxy/oci"},
	"daemon/admin":                 {"daemon/activity", "daemon/health", "daemon/state"},
	"daemon/certificate":           {},
	"daemon/health":                {},
	"daemon/metrics":               {"daemon/health", "proxy/observe"},
	"daemon/config":                {"proxy/oci"},
	"daemon/doctor":                {"daemon/proxycheck", "hostconfig", "hostconfig/engine", "proxy/testimage"},
	"daemon/filewatch":             {},
	"daemon/handover":              {},
	"daemon/keeper":                {"daemon/config", "daemon/filewatch", "daemon/handover", "daemon/logging", "daemon/sdnotify", "daemon/sdnotify/sdnotifytest", "hostconfig", "hostconfig/egress", "hostconfig/engine", "hostconfig/live", "hostconfig/hostfs"},
	"daemon/listener":              {},
	"daemon/logging":               {},
	"daemon/proxycheck":            {"daemon/listener", "daemon/sdnotify"},
	"daemon/sdnotify":              {"daemon/sdnotify/sdnotifytest"},
	"daemon/sdnotify/sdnotifytest": {},
	"daemon/siteconfig":            {},
	"daemon/state":                 {},
	"daemon/tracing":               {"proxy/observe"},
	"daemon/web":                   {"daemon/activity", "daemon/config", "daemon/health", "proxy/forwarded"},

	"hostconfig": {
		"hostconfig/buildkit", "hostconfig/certsd", "hostconfig/containerd", "hostconfig/containersimage", "hostconfig/docker", "hostconfig/egress", "hostconfig/engine", "hostconfig/hostfs", "hostconfig/journal", "hostconfig/kubelet", "hostconfig/live", "hostconfig/ownunit",
		"hostconfig/process", "hostconfig/socket", "hostconfig/splice",
	},
	"hostconfig/certsd": {"hostconfig/engine", "hostconfig/hostfs", "hostconfig/journal", "hostconfig/splice", "hostconfig/version"},
	"hostconfig/containerd": {
		"hostconfig/certsd", "hostconfig/engine", "hostconfig/hostfs", "hostconfig/live", "hostconfig/process", "hostconfig/snapshotter", "hostconfig/socket", "hostconfig/splice",
		"hostconfig/unitfile", "hostconfig/version",
	},
	"hostconfig/buildx": {"hostconfig/splice"},
	"hostconfig/buildkit": {
		"hostconfig/engine", "hostconfig/live", "hostconfig/process", "hostconfig/splice", "hostconfig/unitfile",
	},
	"hostconfig/containersimage": {
		"hostconfig/certsd", "hostconfig/engine", "hostconfig/hostfs", "hostconfig/live", "hostconfig/process", "hostconfig/socket", "hostconfig/splice", "hostconfig/version",
	},
	"hostconfig/docker": {
		"hostconfig/certsd", "hostconfig/engine", "hostconfig/hostfs", "hostconfig/live", "hostconfig/process", "hostconfig/socket", "hostconfig/splice",
		"hostconfig/unitfile", "hostconfig/version",
	},
	"hostconfig/egress":      {"hostconfig/engine", "hostconfig/hostfs", "hostconfig/process", "hostconfig/splice", "hostconfig/unitfile"},
	"hostconfig/engine":      {"hostconfig/hostfs", "hostconfig/journal", "hostconfig/live", "hostconfig/splice", "hostconfig/version"},
	"hostconfig/hostfs":      {},
	"hostconfig/journal":     {"hostconfig/hostfs"},
	"hostconfig/kubelet":     {"hostconfig/hostfs", "hostconfig/process", "hostconfig/unitfile"},
	"hostconfig/live":        {},
	"hostconfig/ownunit":     {"hostconfig/engine", "hostconfig/live", "hostconfig/splice", "hostconfig/unitfile"},
	"hostconfig/process":     {},
	"hostconfig/snapshotter": {"hostconfig/engine", "hostconfig/hostfs"},
	"hostconfig/socket":      {"hostconfig/process"},
	"hostconfig/splice":      {},
	"hostconfig/unitfile":    {"hostconfig/hostfs"},
	"hostconfig/version":     {},

	"proxy":                         {"daemon/config", "proxy/access", "proxy/auth", "proxy/cache", "proxy/credential", "proxy/forwarded", "proxy/observe", "proxy/oci", "proxy/peer", "proxy/prefetch", "proxy/shared", "proxy/testimage", "proxy/transfer", "proxy/upstream", "proxy/visitor", "proxy/visitor/users"},
	"proxy/access":                  {"proxy/auth", "proxy/cache", "proxy/credential", "proxy/peer"},
	"proxy/auth":                    {"proxy/credential", "proxy/observe", "proxy/oci"},
	"proxy/cache":                   {"proxy/oci"},
	"proxy/cache/inventory":         {"proxy/cache", "proxy/oci"},
	"proxy/credential":              {"proxy/oci"},
	"proxy/credential/dockerhelper": {"proxy/credential", "proxy/credential/program", "proxy/credential/renewal"},
	"proxy/credential/kubelet":      {"proxy/credential", "proxy/credential/program", "proxy/credential/renewal"},
	"proxy/credential/program":      {"proxy/credential"},
	"proxy/credential/renewal":      {"proxy/credential"},
	"proxy/credential/sealed":       {"proxy/credential", "proxy/credential/program"},
	"proxy/forwarded":               {},
	"proxy/observe":                 {},
	"proxy/oci":                     {},
	"proxy/peer":                    {"proxy/peer/cgroup"},
	"proxy/peer/cgroup":             {},
	"proxy/prefetch":                {},
	"proxy/shared":                  {"proxy/observe"},
	"proxy/testimage":               {},
	"proxy/transfer":                {"proxy/cache", "proxy/oci"},
	"proxy/visitor":                 {"proxy/forwarded", "proxy/oci", "proxy/visitor/users"},
	"proxy/visitor/users":           {},
	"proxy/upstream":                {"daemon/config", "proxy/auth", "proxy/credential", "proxy/observe", "proxy/oci"},
}

// mayUse says which files may import a module that only few should know. Each entry is a pattern of
// path.Match. Tests may import any of them.
var mayUse = map[string][]string{
	// One watcher and one voice towards systemd, so that each has one owner.
	"github.com/fsnotify/fsnotify":     {"daemon/filewatch/*.go"},
	"github.com/coreos/go-systemd/v22": {"daemon/sdnotify/*.go"},
	// Leaves return errors. Their callers know whether an error is worth a line in the log.
	// One package knows how spans look to others.
	"go.opentelemetry.io/otel":       {"daemon/tracing/*.go"},
	"go.opentelemetry.io/otel/sdk":   {"daemon/tracing/*.go"},
	"go.opentelemetry.io/otel/trace": {"daemon/tracing/*.go"},
	"github.com/sirupsen/logrus":     {"cmd/sidemirror/*.go", "daemon/*.go", "daemon/keeper/*.go", "daemon/logging/*.go", "proxy/*.go", "hostconfig/hostconfig.go"},
	"github.com/minio/minio-go/v7":   {"proxy/shared/*.go"},
	"github.com/spf13/cobra":         {"cmd/sidemirror/*.go"},
	"github.com/spf13/pflag":         {"cmd/sidemirror/args.go", "cmd/sidemirror/complete.go", "cmd/sidemirror/man.go"},
}

// testOnly lists the modules that only tests of the product need. Other test dependencies belong to
// the test module.
var testOnly = []string{"go.uber.org/goleak"}

// vague are names that say nothing about what a folder holds.
var vague = []string{"pkg", "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir                                    string
	GoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Module                                             *struct{ Path string }
}

// goList runs go list -json with args in the root of the module.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("reading the output of %s: %v", cmd, err)
		}
		all = append(all, p)
	}
}

// folder is where in the module an import path is: "" for the root, ok false for
// a path of another module.
func folder(importPath string) (name string, ok bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// eachImport calls f with every import of every file of ours, whatever system
// the file is for; file is relative to the root.
func eachImport(t *testing.T, f func(file, folder, imported string)) {
	t.Helper()
	for _, p := range goList(t, "./...") {
		name, ok := folder(p.ImportPath)
		if !ok {
			t.Fatalf("go list ./... lists %s", p.ImportPath)
		}
		for _, file := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range parsed.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				f(path.Join(name, file), name, imported)
			}
		}
	}
}

func TestImportsRunDownwards(t *testing.T) {
	seen := map[string]bool{}
	eachImport(t, func(file, from, imported string) {
		seen[from] = true
		to, ours := folder(imported)
		if !ours || to == from || strings.HasPrefix(to, "internal/") {
			return
		}
		if !slices.Contains(mayImport[from], to) {
			t.Errorf("%s imports %s, which %s may not know", file, to, from)
		}
	})
	for from := range seen {
		if _, known := mayImport[from]; !known && from != "" && !strings.HasPrefix(from, "internal/") {
			t.Errorf("%s is not in mayImport: enter it with what it may know", from)
		}
	}
}

// Allowed single steps could still meet by a detour. The protocol's words are the only part of
// proxy that the configuration needs.
func TestSeparateHalvesNeverMeet(t *testing.T) {
	for from, never := range map[string][]string{
		"./proxy/...":         {"hostconfig", "daemon/keeper"},
		"./hostconfig/...":    {"proxy", "daemon"},
		"./daemon":            {"hostconfig", "daemon/keeper"},
		"./daemon/keeper/...": {"proxy", "daemon/listener"},
	} {
		for _, p := range goList(t, "-deps", "-test", from) {
			name, ours := folder(p.ImportPath)
			if !ours || name == "proxy/oci" {
				continue
			}
			for _, other := range never {
				if name == other || strings.HasPrefix(name, other+"/") {
					t.Errorf("%s depends on %s", from, name)
				}
			}
		}
	}
}

func TestModulesStayWithTheirOwners(t *testing.T) {
	eachImport(t, func(file, _, imported string) {
		for mod, owners := range mayUse {
			if imported != mod && !strings.HasPrefix(imported, mod+"/") || strings.HasSuffix(file, "_test.go") {
				continue
			}
			owned := slices.ContainsFunc(owners, func(pattern string) bool {
				ok, err := path.Match(pattern, file)
				if err != nil {
					t.Fatalf("pattern %q: %v", pattern, err)
				}
				return ok
			})
			if !owned {
				t.Errorf("%s imports %s, which is for %s alone", file, imported, strings.Join(owners, ", "))
			}
		}
	})
}

func TestProductHasNoTestDependencies(t *testing.T) {
	modules := func(args ...string) map[string]bool {
		found := map[string]bool{}
		for _, p := range goList(t, args...) {
			if p.Module != nil {
				found[p.Module.Path] = true
			}
		}
		return found
	}
	product := modules("-deps", "./...")
	for mod := range modules("-deps", "-test", "./...") {
		if !product[mod] && !slices.Contains(testOnly, mod) {
			t.Errorf("only tests need %s: such a test belongs to the test/ module", mod)
		}
	}
}

func TestFoldersSayWhatTheyHold(t *testing.T) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if slices.Contains(vague, d.Name()) {
			t.Errorf("folder %s: the name does not say what is in it", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
