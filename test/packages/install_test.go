package packages

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// made is a checkout with what "make files" makes in it.
func made(t *testing.T) string {
	t.Helper()
	checkout := filepath.Join(t.TempDir(), "checkout")
	copyCheckout(t, checkout)
	run(t, checkout, []string{"GOFLAGS=", "SOURCE_DATE_EPOCH=" + moment}, "make", "files", "VERSION="+version)
	return checkout
}

func TestMakeInstall(t *testing.T) {
	checkout := made(t)
	t.Run("uninstall leaves nothing", func(t *testing.T) { leavesNothing(t, checkout) })
	t.Run("the administrator's configuration stays", func(t *testing.T) { keepsConfiguration(t, checkout) })
}

func leavesNothing(t *testing.T, checkout string) {
	for prefix, units := range map[string]string{
		"":            "/usr/local/lib", // the default
		"/usr":        "/usr/lib",
		"/opt/mirror": "/usr/local/lib", // systemd does not look below it
	} {
		t.Run("PREFIX="+prefix, func(t *testing.T) {
			// A real root has some of the folders already, empty or not. They stay.
			dest := t.TempDir()
			own := []string{"/etc", "/usr/local/share/man/man1", "/usr/share/doc"}
			for _, name := range own {
				if err := os.MkdirAll(filepath.Join(dest, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before := folders(t, dest)
			args := []string{"DESTDIR=" + dest}
			bin := "/usr/local/bin"
			if prefix != "" {
				args, bin = append(args, "PREFIX="+prefix), prefix+"/bin"
			}
			out := run(t, checkout, nil, "make", append([]string{"install"}, args...)...)
			if strings.Contains(out, "systemctl") {
				t.Errorf("in DESTDIR there is nothing to be started, but it says:\n%s", out)
			}
			list := files(t, dest)
			for _, name := range []string{
				bin + "/sidemirror",
				units + "/systemd/system/sidemirror.service", units + "/systemd/system/sidemirror.socket",
				units + "/systemd/system/sidemirror-hosts.service", units + "/systemd/system-preset/80-sidemirror.preset",
				units + "/sysusers.d/sidemirror.conf", units + "/tmpfiles.d/sidemirror.conf",
				"/etc/sidemirror/config.toml",
			} {
				if !slices.Contains(list, name) {
					t.Errorf("no %s", name)
				}
			}
			for _, name := range list {
				if strings.Contains(name, ".wants/") {
					t.Errorf("enabled: %s", name)
				}
			}
			for unit, command := range map[string]string{"sidemirror.service": "serve", "sidemirror-hosts.service": "watch"} {
				text, err := os.ReadFile(filepath.Join(dest, units, "systemd/system", unit))
				if err != nil || !strings.Contains(string(text), "\nExecStart="+bin+"/sidemirror "+command+"\n") {
					t.Errorf("%s does not start %s: %v", unit, bin, err)
				}
				if bin != "/usr/bin" && strings.Contains(string(text), "/usr/bin/sidemirror") {
					t.Errorf("%s speaks of /usr/bin/sidemirror", unit)
				}
			}
			// Installed again, it still knows which folders it made.
			run(t, checkout, nil, "make", append([]string{"install"}, args...)...)
			if out := run(t, "/", nil, filepath.Join(dest, bin, "sidemirror"), "version"); !strings.Contains(out, version) {
				t.Errorf("installed is %s", out)
			}
			run(t, checkout, nil, "make", append([]string{"uninstall"}, args...)...)
			if left := files(t, dest); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if after := folders(t, dest); !slices.Equal(after, before) {
				t.Errorf("folders before: %q\nafter: %q", before, after)
			}
		})
	}
}

// folders are the names of all folders under dir.
func folders(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			list = append(list, strings.TrimPrefix(name, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func keepsConfiguration(t *testing.T, checkout string) {
	dest := t.TempDir()
	config := filepath.Join(dest, "etc/sidemirror/config.toml")
	run(t, checkout, nil, "make", "install", "DESTDIR="+dest)
	const edited = "[log]\nlevel = \"debug\"\n"
	if err := os.WriteFile(config, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, checkout, nil, "make", "install", "DESTDIR="+dest)
	run(t, checkout, nil, "make", "uninstall", "DESTDIR="+dest)
	if text, err := os.ReadFile(config); err != nil || string(text) != edited {
		t.Errorf("%q, %v", text, err)
	}
	if left := files(t, dest); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}
