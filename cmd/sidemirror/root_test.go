package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// invoke runs the command line, and returns what it printed and its exit code.
func invoke(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &err)
	return out.String(), err.String(), code
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongUsageIsToldFromFailure(t *testing.T) {
	bad := configFile(t, "lisen = []\n")
	taken := configFile(t, "listen = ['192.0.2.1:305']\n") // TEST-NET-1, no host has it
	for _, tt := range []struct {
		args []string
		code int
		want string // on standard error
	}{
		{nil, 0, ""},
		{[]string{"version"}, 0, ""},
		{[]string{"help", "serve"}, 0, ""},
		{[]string{"frobnicate"}, 2, `unknown command "frobnicate"`},
		{[]string{"serv"}, 2, `did you mean "serve"?`},
		{[]string{"--nope"}, 2, "unknown flag --nope"},
		{[]string{"version", "--nope"}, 2, "hint: sidemirror version --help"},
		{[]string{"version", "now"}, 2, "now"},
		{[]string{"serve", "now"}, 2, "now"},
		{[]string{"config"}, 2, "check or show"},
		{[]string{"config", "sho"}, 2, "sho"},
		{[]string{"config", "check", "a", "b"}, 2, "config check takes one file and nothing else, but 2 arguments are given"},
		{[]string{"completion"}, 2, "completion needs a shell"},
		{[]string{"--version"}, 0, ""},
		{[]string{"version", "--jsno"}, 2, `did you mean "--json"?`},
		{[]string{"cache", "prun"}, 2, "unknown command \"cache prun\"\nhint: did you mean \"prune\"?"},
		{[]string{"help", "serv"}, 2, `did you mean "serve"?`},
		{[]string{"completion", "bsh"}, 2, `did you mean "bash"?`},
		{[]string{"login", "ghcr.io", "c4n4ry"}, 2, "login takes a registry and nothing else, but 2 arguments are given"},
		{[]string{"apply", "--engine", "dokcer"}, 2, `did you mean "docker"?`},
		{[]string{"status", "--json=maybe"}, 2, `--json takes true or false, not "maybe"`},
		{[]string{"pull", "--jobs", "many", "app"}, 2, `--jobs takes a number, not "many"`},
		{[]string{"pull", "--jobs"}, 2, "--jobs needs a value (number)"},
		{[]string{"version", "--=x"}, 2, "is not a flag"},
		{[]string{"login", "-pc4n4ry", "ghcr.io"}, 2, "unknown flag -p"},
		{[]string{"login", "--password=c4n4ry", "ghcr.io"}, 2, "unknown flag --password"},
		{[]string{"plan", "--nope"}, 1, "unknown flag --nope"},
		{[]string{"plan", "now"}, 1, `plan takes no argument, but "now" is given`},
		{[]string{"plan", "--config", bad}, 1, "lisen"},
		{[]string{"completion", "powershell"}, 2, "powershell"},
		{[]string{"config", "check", bad}, 2, bad + `:1:1: unknown key "lisen"`},
		{[]string{"config", "show", "--config", bad}, 2, "lisen"},
		{[]string{"serve", "--config", bad}, 2, "lisen"},
		{[]string{"config", "check", "/nonexistent.toml"}, 2, "there is no such file"},
		{[]string{"serve", "--config", taken}, 1, "this host has no such address"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			_, stderr, code := invoke(t, tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, want %d; it said %q, want %q", code, tt.code, stderr, tt.want)
			}
			if strings.Contains(stderr, "c4n4ry") {
				t.Errorf("what may be a password is repeated: %s", stderr)
			}
			if (code == 0) != (stderr == "") {
				t.Errorf("exit %d and on standard error %q", code, stderr)
			}
		})
	}
}

func TestConfigShowIsAFileThatConfigCheckTakes(t *testing.T) {
	t.Setenv("SIDEMIRROR_TRUST_UIDS", "0,1000")
	given := configFile(t, "[registry.'corp.example']\nhosts = ['m.lan']\n")
	shown, _, code := invoke(t, "config", "show", "--config", given)
	if code != 0 || !strings.Contains(shown, "uids = [0, 1000]  # SIDEMIRROR_TRUST_UIDS\n") || !strings.Contains(shown, given+":2\n") {
		t.Fatalf("exit %d, shown:\n%s", code, shown)
	}
	again := configFile(t, shown)
	if out, stderr, code := invoke(t, "config", "check", again); code != 0 || out != "ok "+again+"\n" {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}

func TestEveryShellHasACompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, _, code := invoke(t, "completion", shell); code != 0 || !strings.Contains(out, "sidemirror") {
			t.Errorf("%s: exit %d, %d bytes", shell, code, len(out))
		}
	}
}

func TestVersionFlagPrintsWhatTheCommandPrints(t *testing.T) {
	want, _, _ := invoke(t, "version")
	if out, _, code := invoke(t, "--version"); code != 0 || out != want {
		t.Errorf("exit %d: %q, want %q", code, out, want)
	}
}

func TestVersionOfAPackageWins(t *testing.T) {
	defer func(before string) { version = before }(version)
	version = "v1.2.3"
	if out, _, _ := invoke(t, "version"); !strings.HasPrefix(out, "sidemirror  v1.2.3\n") {
		t.Errorf("got %q", out)
	}
}
