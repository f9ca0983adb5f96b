package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/process"
)

func lintian(t *testing.T, debs []format) {
	program := process.Path(t, "lintian")
	for _, f := range debs {
		out, err := exec.CommandContext(t.Context(), program, "--fail-on", "error,warning", "--tag-display-limit", "0", f.file).CombinedOutput()
		// As root it says that it should not be.
		said := strings.TrimSpace(strings.ReplaceAll(string(out), "running with root privileges is not recommended!", ""))
		if err != nil || said != "" {
			t.Errorf("%s: %v\n%s", f.file, err, said)
		}
	}
}

func rpmlint(t *testing.T, rpms []format) {
	program := process.Path(t, "rpmlint")
	for _, f := range rpms {
		relativeNames(t, f) // rpmlint unpacks the package, as root into this host's folders if it has absolute names
	}
	out := run(t, root, nil, program, "--config", "packaging/rpmlint.toml", rpms[0].file, rpms[1].file)
	if !strings.Contains(out, " 0 errors, 0 warnings, ") {
		t.Errorf("%s", out)
	}
}

// relativeNames ends the test if a name in the payload of an rpm does not begin with "./", as in
// packages that rpmbuild makes.
func relativeNames(t *testing.T, rpm format) {
	t.Helper()
	out := run(t, ".", []string{"FILE=" + rpm.file}, "sh", "-c", `rpm2cpio "$FILE" | cpio --list --quiet`)
	names := strings.Fields(out)
	for _, name := range names {
		if !strings.HasPrefix(name, "./") {
			t.Fatalf("%s has the name %s in its payload", rpm.file, name)
		}
	}
	// rpm's own list is of what it installs.
	var installed []string
	for name := range strings.FieldsSeq(run(t, ".", nil, "rpm", "-qpl", rpm.file)) {
		installed = append(installed, "."+name)
	}
	slices.Sort(names)
	slices.Sort(installed)
	if !slices.Equal(names, installed) || len(names) < 20 {
		t.Errorf("%s has %q in its payload, and %q in its header", rpm.file, names, installed)
	}
}

// scripts checks the maintainer scripts as the packages have them, with what
// build.sh put before each.
func scripts(t *testing.T, deb, rpm format) {
	control := t.TempDir()
	run(t, ".", nil, "dpkg-deb", "--control", deb.file, control)
	all := map[string]string{}
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
		data, err := os.ReadFile(filepath.Join(control, name))
		if err != nil {
			t.Error(err)
		}
		all[name] = string(data)
	}
	for _, tag := range []string{"PREIN", "POSTIN", "PREUN", "POSTUN"} {
		all["rpm "+tag] = run(t, ".", nil, "rpm", "-qp", "--qf", "%{"+tag+"}", rpm.file)
		if with := run(t, ".", nil, "rpm", "-qp", "--qf", "%{"+tag+"PROG}", rpm.file); with != "/bin/sh" {
			t.Errorf("%s is run by %s", tag, with)
		}
	}
	for name, text := range all {
		if !strings.HasPrefix(text, "#!/bin/sh\n") || strings.Count(text, "\n") < 20 {
			t.Errorf("%s is no script of ours:\n%.200s", name, text)
		}
		at := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(at, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		// SC2317: not each of them calls each function that they have in common.
		run(t, ".", nil, process.Path(t, "shellcheck"), "--shell=sh", "--exclude=SC2317", at)
		run(t, ".", nil, "sh", "-n", at)
	}
	for _, name := range []string{"build.sh", "files.sh", "install.sh", "release.sh", "toolchain.sh", "version.sh"} {
		run(t, filepath.Join(root, "packaging"), nil, process.Path(t, "shellcheck"), name)
	}
}

// manual runs mandoc on every page. What mandoc reports about style alone is left out.
func manual(t *testing.T, deb format) {
	program := process.Path(t, "mandoc")
	for _, name := range files(t, filepath.Join(deb.unpacked, "usr/share/man")) {
		at := filepath.Join(deb.unpacked, "usr/share/man", name)
		text := gunzip(t, at)
		if to, ok := strings.CutPrefix(text, ".so "); ok {
			gunzip(t, filepath.Join(deb.unpacked, "usr/share/man", strings.TrimSpace(to)+".gz"))
			continue
		}
		for _, section := range []string{"EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"} {
			if !strings.Contains(text, "\n.SH "+section+"\n") {
				t.Errorf("%s has no section %s", name, section)
			}
		}
		cmd := exec.CommandContext(t.Context(), program, "-Tlint", "-Wwarning")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if !strings.Contains(text, " 2001-09-09 ") {
			t.Errorf("%s has not the date of the build:\n%.120s", name, text)
		}
	}
}
