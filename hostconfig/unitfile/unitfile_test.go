package unitfile

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// tree makes a host's tree from files by their paths.
func tree(t *testing.T, files map[string]string) *hostfs.Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := hostfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestCommandLineOfAUnit(t *testing.T) {
	const etc, lib, usr = "/etc/systemd/system/x.service", "/lib/systemd/system/x.service", "/usr/lib/systemd/system/x.service"
	service := func(lines ...string) string {
		return "[Unit]\nExecStart=/no\n[Service]\n" + strings.Join(lines, "\n") + "\n"
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"no unit":            {nil, nil},
		"plain":              {map[string]string{lib: service("ExecStart=/usr/bin/x --a b")}, []string{"/usr/bin/x", "--a", "b"}},
		"prefixes":           {map[string]string{lib: service("ExecStart=-@/usr/bin/x --a")}, []string{"/usr/bin/x", "--a"}},
		"quotes":             {map[string]string{lib: service(`ExecStart=/usr/bin/x "a b" 'c d' e\ f ""`)}, []string{"/usr/bin/x", "a b", "c d", "e f", ""}},
		"continued":          {map[string]string{lib: service(`ExecStart=/usr/bin/x \`, "  # a comment", "  --a")}, []string{"/usr/bin/x", "--a"}},
		"etc before lib":     {map[string]string{lib: service("ExecStart=/usr/bin/x lib"), etc: service("ExecStart=/usr/bin/x etc")}, []string{"/usr/bin/x", "etc"}},
		"usr before lib":     {map[string]string{lib: service("ExecStart=/usr/bin/x lib"), usr: service("ExecStart=/usr/bin/x usr")}, []string{"/usr/bin/x", "usr"}},
		"drop-in":            {map[string]string{lib: service("ExecStart=/usr/bin/x"), etc + ".d/a.conf": service("ExecStart=", "ExecStart=/usr/bin/x --a")}, []string{"/usr/bin/x", "--a"}},
		"drop-ins by name":   {map[string]string{lib: service("ExecStart=x"), etc + ".d/b.conf": service("ExecStart=b"), lib + ".d/c.conf": service("ExecStart=c")}, []string{"c"}},
		"one drop-in hidden": {map[string]string{lib: service("ExecStart=x"), etc + ".d/c.conf": service("ExecStart=etc"), lib + ".d/c.conf": service("ExecStart=lib")}, []string{"etc"}},
		"no drop-in":         {map[string]string{lib: service("ExecStart=x"), etc + ".d/c.bak": service("ExecStart=c")}, []string{"x"}},
		"variable":           {map[string]string{lib: service("Environment=A=1 B=2", "ExecStart=x --a=${A} $B")}, []string{"x", "--a=1", "2"}},
		"words of one":       {map[string]string{lib: service(`Environment="A=--a 'b c'"`, "ExecStart=x $A ${A}")}, []string{"x", "--a", "b c", "--a 'b c'"}},
		"unset":              {map[string]string{lib: service("ExecStart=x $A --b=${B}")}, []string{"x", "--b="}},
		"reset":              {map[string]string{lib: service("Environment=A=1", "Environment=", "ExecStart=x ${A}")}, []string{"x", ""}},
		"file":               {map[string]string{lib: service("EnvironmentFile=/e", "ExecStart=x ${A}"), "/e": "# c\nA=\"1 2\" \n"}, []string{"x", "1 2"}},
		"file over setting":  {map[string]string{lib: service("EnvironmentFile=/e", "Environment=A=0", "ExecStart=x ${A}"), "/e": "A=1"}, []string{"x", "1"}},
		"optional file gone": {map[string]string{lib: service("EnvironmentFile=-/e", "ExecStart=x $A")}, []string{"x"}},
		"file gone":          {map[string]string{lib: service("EnvironmentFile=/e", "ExecStart=x $A ${B}c")}, []string{"x", "$A", "${B}c"}},
		"files by pattern":   {map[string]string{lib: service("EnvironmentFile=/e/*.env", "ExecStart=x $A"), "/e/a.env": "A=1"}, []string{"x", "1"}},
		"not closed":         {map[string]string{lib: service("ExecStart=x ${A")}, []string{"x", "${A"}},
		"value unresolved":   {map[string]string{lib: service("Environment=A=%i", "ExecStart=x ${A}")}, []string{"x", "${A}"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Read(tree(t, test.files), "x.service")
			if err != nil || !slices.Equal(s.Args, test.want) {
				t.Errorf("got %q, %v", s.Args, err)
			}
		})
	}
}

func TestAUnitThatCannotBeReadIsAnError(t *testing.T) {
	h := tree(t, map[string]string{"/etc/systemd/system/y": "x"})
	if err := os.Symlink("x.service.d", filepath.Join(h.Dir(), "/etc/systemd/system/x.service.d")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(h, "x.service"); err == nil {
		t.Error("no error")
	}
}

func TestWordsOfAVariable(t *testing.T) {
	h := tree(t, map[string]string{"/d": "# DOCKER_OPTS=\"--no\"\nexport DOCKER_OPTS=\"--a b --c\"\n"})
	for variable, want := range map[string][]string{"DOCKER_OPTS": {"--a", "b", "--c"}, "OTHER": nil} {
		if got, err := Words(h, "/d", variable); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", variable, got, err)
		}
	}
	if got, err := Words(h, "/gone", "X"); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzSyntax(f *testing.F) {
	f.Add([]byte("[Service]\nExecStart=/usr/bin/x \\\n  \"a b\" ${C} $D\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Service{Environment: map[string]string{"A": "1"}}
		for _, setting := range settings(data) {
			for _, word := range s.command(setting.value, true) {
				if strings.Contains(word, "${A}") && !strings.Contains(setting.value, "\\") && !strings.Contains(word, "${A}$") && !strings.Contains(word, "${") {
					t.Errorf("%q has a variable in it", word)
				}
			}
		}
	})
}

func TestEnvironmentOfAUnit(t *testing.T) {
	const unit = "/etc/systemd/system/x.service"
	for name, test := range map[string]struct {
		files map[string]string
		want  map[string]string
	}{
		"quotes and percent signs": {map[string]string{unit: "[Service]\nEnvironment=\"A=http://u:p%%40s@proxy:1\" 'B=1 2'"}, map[string]string{"A": "http://u:p%40s@proxy:1", "B": "1 2"}},
		"drop-in over unit":        {map[string]string{unit: "[Service]\nEnvironment=A=1 B=2", unit + ".d/a.conf": "[Service]\nEnvironment=A=3"}, map[string]string{"A": "3", "B": "2"}},
		"file over unit":           {map[string]string{unit: "[Service]\nEnvironmentFile=-/e\nEnvironment=A=1", "/e": "A='http://u:p%40s@proxy:1'"}, map[string]string{"A": "http://u:p%40s@proxy:1"}},
		"unset by name":            {map[string]string{unit: "[Service]\nEnvironment=A=1 B=2\nUnsetEnvironment=A C"}, map[string]string{"B": "2"}},
		"unset by assignment":      {map[string]string{unit: "[Service]\nEnvironment=A=1 B=2\nUnsetEnvironment=A=1 B=3"}, map[string]string{"B": "2"}},
		"unset of a file's":        {map[string]string{unit: "[Service]\nEnvironmentFile=/e\nUnsetEnvironment=A", "/e": "A=1\nB=2"}, map[string]string{"B": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Read(tree(t, test.files), "x.service")
			if err != nil || !maps.Equal(s.Environment, test.want) {
				t.Errorf("got %q, %v", s.Environment, err)
			}
		})
	}
}
