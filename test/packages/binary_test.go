package packages

import (
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func binaries(t *testing.T, debs, rpms []format) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for i, f := range slices.Concat(debs, rpms) {
		name := filepath.Join(f.unpacked, "usr/bin/sidemirror")
		binary, err := elf.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer binary.Close()
		if binary.Machine != machines[f.arch] {
			t.Errorf("%s has a binary for %v", f.file, binary.Machine)
		}
		for _, p := range binary.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s: the binary has a segment of %v: it is not static", f.file, p.Type)
			}
		}
		if libraries, err := binary.ImportedLibraries(); err == nil && len(libraries) > 0 {
			t.Errorf("%s: the binary needs %q", f.file, libraries)
		}
		if i < len(debs) && debs[i].read(t, "usr/bin/sidemirror") != rpms[i].read(t, "usr/bin/sidemirror") {
			t.Errorf("%s and %s differ in the binary", debs[i].file, rpms[i].file)
		}
		if f.arch == runtime.GOARCH {
			if out := run(t, "/", nil, name, "version"); !strings.Contains(out, version) || !strings.Contains(out, commit) {
				t.Errorf("%s: it says of itself:\n%s", f.file, out)
			}
		}
	}
}

// Every module in the binary, according to the linker, must be in the files about licences.
func licences(t *testing.T, deb, rpm format) {
	info, err := buildinfo.ReadFile(filepath.Join(deb.unpacked, "usr/bin/sidemirror"))
	if err != nil {
		t.Fatal(err)
	}
	copyright := deb.read(t, "usr/share/doc/sidemirror/copyright")
	notices := rpm.read(t, "usr/share/licenses/sidemirror/NOTICES")
	provides := run(t, ".", nil, "rpm", "-qp", "--provides", rpm.file)
	if len(info.Deps) < 10 {
		t.Fatalf("only %d modules in the binary", len(info.Deps))
	}
	for _, dep := range info.Deps {
		at := strings.TrimPrefix(dep.Version, "v")
		for where, want := range map[string]string{
			"copyright": "\nFiles: " + dep.Path + "@" + at + "/*\nCopyright: ",
			"NOTICES":   "\n" + dep.Path + " " + at + " (",
			"provides":  "bundled(golang(" + dep.Path + ")) = " + strings.ReplaceAll(at, "-", "~") + "\n",
		} {
			if !strings.Contains(map[string]string{"copyright": copyright, "NOTICES": notices, "provides": provides}[where], want) {
				t.Errorf("%s does not name %s %s", where, dep.Path, at)
			}
		}
	}
	if got, want := strings.Count(provides, "bundled("), len(info.Deps); got != want {
		t.Errorf("the rpm says it has %d modules; %d are linked", got, want)
	}
	if got, want := strings.Count(copyright, "\nFiles: "), len(info.Deps)+2; got != want { // ours and Go's
		t.Errorf("copyright has %d parts, want %d", got, want)
	}
	for _, field := range []string{"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n", "\nLicense: Apache-2.0\n"} {
		if !strings.Contains(copyright, field) {
			t.Errorf("copyright lacks %q", field)
		}
	}
	// Each licence that a part names has its text.
	for line := range strings.Lines(copyright) {
		if name, ok := strings.CutPrefix(line, "License: "); ok && !strings.Contains(copyright, "\n\nLicense: "+name+" ") {
			t.Errorf("copyright has no text of %s", name)
		}
	}
	if got := run(t, ".", nil, "rpm", "-qp", "--qf", "%{LICENSE}", rpm.file); !strings.HasPrefix(got, "Apache-2.0 AND ") {
		t.Errorf("licence of the rpm: %s", got)
	}
}

func changelogs(t *testing.T, deb, rpm format) {
	text := gunzip(t, filepath.Join(deb.unpacked, "usr/share/doc/sidemirror/changelog.gz"))
	if !strings.HasPrefix(text, "sidemirror ("+version+") ") || !strings.Contains(text, "  Sun, 09 Sep 2001 01:46:40 +0000\n") {
		t.Errorf("the changelog begins with %.200s", text)
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 && !strings.HasPrefix(line, " -- ") {
			t.Errorf("a line of the changelog is %d long: %s", len(line), line)
		}
	}
	got := run(t, ".", nil, "rpm", "-qp", "--changelog", rpm.file)
	if !strings.HasPrefix(got, "* Sun Sep 09 2001 ") || !strings.Contains(strings.SplitN(got, "\n", 2)[0], version+"-1") {
		t.Errorf("the rpm's changelog begins with %.200s", got)
	}
	// Both are from CHANGELOG.md.
	for _, text := range []string{text, got} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), "a read-only proxy for any number of registries") {
			t.Errorf("a changelog that has nothing of CHANGELOG.md: %.300s", text)
		}
	}
}

func gunzip(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
