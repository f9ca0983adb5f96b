package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// installed is what both formats bring, manual pages and docs apart, and its mode.
var installed = map[string]string{
	"/etc/sidemirror":                                      "drwxr-xr-x",
	"/etc/sidemirror/config.toml":                          "-rw-r--r--",
	"/usr/bin/sidemirror":                                  "-rwxr-xr-x",
	"/usr/lib/systemd/system-preset/80-sidemirror.preset":  "-rw-r--r--",
	"/usr/lib/systemd/system/sidemirror-hosts.service":     "-rw-r--r--",
	"/usr/lib/systemd/system/sidemirror.service":           "-rw-r--r--",
	"/usr/lib/systemd/system/sidemirror.socket":            "-rw-r--r--",
	"/usr/lib/systemd/system/sidemirror-site.socket":       "-rw-r--r--",
	"/usr/lib/systemd/system/sidemirror-site-http.socket":  "-rw-r--r--",
	"/usr/lib/sysusers.d/sidemirror.conf":                  "-rw-r--r--",
	"/usr/lib/tmpfiles.d/sidemirror.conf":                  "-rw-r--r--",
	"/usr/share/bash-completion/completions/sidemirror":    "-rw-r--r--",
	"/usr/share/fish/vendor_completions.d/sidemirror.fish": "-rw-r--r--",
	"/usr/share/doc/sidemirror":                            "drwxr-xr-x",
	"/usr/share/doc/sidemirror/README.md":                  "-rw-r--r--",
	"/usr/share/doc/sidemirror/docs":                       "drwxr-xr-x",
	"/usr/share/doc/sidemirror/docs/install.md":            "-rw-r--r--",
	"/usr/share/doc/sidemirror/docs/prometheus":            "drwxr-xr-x",
	"/usr/share/man/man1/sidemirror.1.gz":                  "-rw-r--r--",
	"/usr/share/man/man1/sidemirror-apply.1.gz":            "-rw-r--r--",
	"/usr/share/man/man5/sidemirror-config.toml.5.gz":      "-rw-r--r--",
	"/usr/share/man/man8/sidemirror.service.8.gz":          "-rw-r--r--",
	"/usr/share/man/man8/sidemirror.socket.8.gz":           "-rw-r--r--",
	"/usr/share/man/man8/sidemirror-site.socket.8.gz":      "-rw-r--r--",
	"/usr/share/man/man8/sidemirror-site-http.socket.8.gz": "-rw-r--r--",
	"/usr/share/man/man8/sidemirror-hosts.service.8.gz":    "-rw-r--r--",
}

var onlyDeb = map[string]string{
	"/usr/share/doc/sidemirror/changelog.gz":        "-rw-r--r--",
	"/usr/share/doc/sidemirror/copyright":           "-rw-r--r--",
	"/usr/share/lintian/overrides/sidemirror":       "-rw-r--r--",
	"/usr/share/zsh/vendor-completions/_sidemirror": "-rw-r--r--",
}

var onlyRPM = map[string]string{
	"/usr/share/licenses/sidemirror":            "drwxr-xr-x",
	"/usr/share/licenses/sidemirror/LICENSE":    "-rw-r--r--",
	"/usr/share/licenses/sidemirror/NOTICES":    "-rw-r--r--",
	"/usr/share/zsh/site-functions/_sidemirror": "-rw-r--r--",
}

// further are files that may be there in addition, in any number.
var further = regexp.MustCompile(`^/usr/share/(man/man1/sidemirror-[a-z-]+\.1\.gz|doc/sidemirror/docs/([a-z-]+\.md|prometheus/[a-z_]+\.(json|yml)))$`)

// entry is a line of "dpkg-deb --contents" or "rpm -qplv".
type entry struct{ mode, owner, name string }

func contents(t *testing.T, debs, rpms []format) {
	for _, f := range debs {
		var list []entry
		for line := range strings.Lines(run(t, ".", nil, "dpkg-deb", "--contents", f.file)) {
			part := strings.Fields(line)
			list = append(list, entry{part[0], part[1], strings.TrimSuffix(strings.TrimPrefix(part[5], "."), "/")})
		}
		// dpkg does without folders that others own, but Debian's packages have them.
		list = slices.DeleteFunc(list, func(e entry) bool {
			return e.mode == "drwxr-xr-x" && e.owner == "root/root" && !strings.Contains(e.name, "sidemirror")
		})
		compare(t, f.file, list, "root/root", onlyDeb)
		if got := run(t, ".", nil, "dpkg-deb", "--info", f.file, "conffiles"); got != "/etc/sidemirror/config.toml\n" {
			t.Errorf("%s: conffiles %q", f.file, got)
		}
	}
	for _, f := range rpms {
		var list []entry
		for line := range strings.Lines(run(t, ".", nil, "rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]", f.file)) {
			part := strings.Fields(line)
			list = append(list, entry{part[0], part[1], part[2]})
		}
		compare(t, f.file, list, "root/root", onlyRPM)
		// c for configuration, n for not replaced.
		if got := run(t, ".", nil, "rpm", "-qp", "--qf", "[%{FILEFLAGS:fflags} %{FILENAMES}\n]", f.file); !strings.Contains(got, "cn /etc/sidemirror/config.toml\n") {
			t.Errorf("%s: config.toml is not %%config(noreplace):\n%s", f.file, got)
		}
		if got := run(t, ".", nil, "rpm", "-qpd", f.file); !strings.Contains(got, "/usr/share/man/man1/sidemirror.1.gz\n") {
			t.Errorf("%s: manual pages are not documentation:\n%s", f.file, got)
		}
	}
	for _, f := range slices.Concat(debs, rpms) {
		for at, from := range map[string]string{
			"etc/sidemirror/config.toml":                         "packaging/config.toml",
			"usr/lib/systemd/system/sidemirror.service":          "systemd/sidemirror.service",
			"usr/lib/systemd/system/sidemirror.socket":           "systemd/sidemirror.socket",
			"usr/lib/systemd/system/sidemirror-site.socket":      "systemd/sidemirror-site.socket",
			"usr/lib/systemd/system/sidemirror-site-http.socket": "systemd/sidemirror-site-http.socket",
			"usr/lib/systemd/system/sidemirror-hosts.service":    "systemd/sidemirror-hosts.service",
			"usr/lib/sysusers.d/sidemirror.conf":                 "systemd/sidemirror.sysusers",
			"usr/lib/tmpfiles.d/sidemirror.conf":                 "systemd/sidemirror.tmpfiles",
			"usr/lib/systemd/system-preset/80-sidemirror.preset": "systemd/sidemirror.preset",
		} {
			want, err := os.ReadFile(filepath.Join(root, from))
			if err != nil {
				t.Fatal(err)
			}
			if f.read(t, at) != string(want) {
				t.Errorf("%s: %s is not %s", f.file, at, from)
			}
		}
	}
}

func compare(t *testing.T, file string, got []entry, owner string, only map[string]string) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range got {
		seen[e.name] = true
		mode := installed[e.name] + only[e.name]
		if mode == "" && further.MatchString(e.name) {
			mode = "-rw-r--r--"
		}
		if e.mode != mode || e.owner != owner {
			t.Errorf("%s: %s is %s of %s, want %q of %s", file, e.name, e.mode, e.owner, mode, owner)
		}
	}
	for _, all := range []map[string]string{installed, only} {
		for name := range all {
			if !seen[name] {
				t.Errorf("%s: no %s", file, name)
			}
		}
	}
}
