package splice

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	ourURL      = "http://127.0.0.1:305"
	theirs      = "[host.\"https://mirror.corp.example\"]\n  capabilities = [\"pull\"]\n"
	ourHost     = "[host.\"http://127.0.0.1:305\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	certsFolder = "/etc/containerd/certs.d"
)

// corpus returns the files of testdata whose names end with name, and variants of them. They have
// the forms of files that Docker's, containerd's and the distributions' documentation show.
func corpus(t testing.TB, name string) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "*."+name))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in testdata: %v", name, err)
	}
	all := [][]byte{nil}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data, bytes.TrimRight(data, "\n"), bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
		if strings.HasSuffix(name, ".json") {
			wide := encoding{order: littleEndian}
			all = append(all, append(bytes.Clone(bom), data...), append([]byte("\xff\xfe"), wide.encode(string(data))...))
		}
	}
	return all
}

// wantProblem wants a refusal to name the file, the kind, the reason and a hint.
func wantProblem(t *testing.T, err error) {
	t.Helper()
	if p := problemIn(err); p == nil || p.Code == "" || p.Path == "" || p.Text == "" || p.Hint == "" {
		t.Fatalf("incomplete refusal: %#v", err)
	}
}

// problemIn returns the problem that err is, or nil.
func problemIn(err error) *problem.Problem {
	var p *problem.Problem
	_ = errors.As(err, &p)
	return p
}

// The mutations are the same in every run.
func TestMutatedFilesAreRefusedOrKeepEveryByte(t *testing.T) {
	for name, check := range map[string]func(*testing.T, []byte){
		"hosts.toml": checkHostsEdit, "daemon.json": checkDaemonEdit, "config.toml": checkConfigEdit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(9, 305))
			files := corpus(t, name)
			for _, data := range files {
				check(t, data)
			}
			for range 1000 {
				data := mutate(random, files)
				check(t, data)
				checkRemoval(t, data)
			}
		})
	}
}

// mutate returns one of files with a few changes: lines and bytes removed, repeated, swapped and
// taken from other files.
func mutate(random *rand.Rand, files [][]byte) []byte {
	pick := func() []byte { return files[random.IntN(len(files))] }
	data := bytes.Clone(pick())
	for range 1 + random.IntN(3) {
		lines := slices.Collect(bytes.Lines(data))
		at := random.IntN(len(data) + 1)
		switch random.IntN(7) {
		case 0:
			data = slices.Delete(data, at, min(len(data), at+1+random.IntN(4)))
		case 1:
			const special = "{}[]\",:=#\n.\x00'\\\xff1t"
			data = slices.Insert(data, at, special[random.IntN(len(special))])
		case 2:
			data = data[:at]
		case 3, 4:
			if other := slices.Collect(bytes.Lines(pick())); len(other) > 0 {
				line := random.IntN(len(lines) + 1)
				lines = slices.Insert(lines, line, other[random.IntN(len(other))])
			}
			data = bytes.Join(lines, nil)
		case 5:
			if len(lines) > 1 {
				line := random.IntN(len(lines) - 1)
				lines[line], lines[line+1] = lines[line+1], lines[line]
			}
			data = bytes.Join(lines, nil)
		case 6:
			if len(lines) > 0 {
				line := random.IntN(len(lines))
				lines = slices.Delete(lines, line, line+1)
			}
			data = bytes.Join(lines, nil)
		}
	}
	return data
}
