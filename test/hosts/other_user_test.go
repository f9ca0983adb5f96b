package hosts_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
)

// A user who is not root may read neither the journal nor the engines' sockets.
func TestWithoutRootStatusAndPlanShowWhatTheyCan(t *testing.T) {
	engine.NeedRoot(t)
	each(t, engine.Generations(), func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath}})
		// A real host's root folder and sidemirror's configuration are readable.
		for _, name := range []string{"/", "/etc", "/etc/sidemirror", "/srv"} {
			if err := os.Chmod(r.host.Path(name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		asUser := func(args ...string) (stdout, stderr string, code int) {
			t.Helper()
			program := "/srv/" + filepath.Base(harness.Binary(t))
			stdout, stderr, code, err := r.host.Run(t.Context(), append([]string{"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", program}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			return stdout, stderr, code
		}
		configuration := r.host.Path("/etc/sidemirror/config.toml")
		if err := os.Chmod(configuration, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := asUser("status"); code != 1 || !strings.Contains(stderr, "permission denied\nhint: run as root\n") {
			t.Errorf("a configuration that cannot be read: exit %d\n%s", code, stderr)
		}
		if err := os.Chmod(configuration, 0o644); err != nil {
			t.Fatal(err)
		}
		// Before apply the plan has all changes.
		stdout, stderr, code := asUser("plan")
		if code != 2 || stderr != "" || !strings.Contains(stdout, "+[host.\"http://127.0.0.1:305\"]") {
			t.Errorf("before apply: exit %d\n%s%s", code, stdout, stderr)
		}
		r.do(t, 0, "apply")
		for _, command := range []string{"plan", "status"} {
			stdout, stderr, code := asUser(command)
			if stderr != "" {
				t.Errorf("%s fails: exit %d\n%s", command, code, stderr)
			}
			for _, want := range []string{"\ncontainerd  ", "docker      ", "note: only root sees whether the engines run", "hint: run as root to see everything"} {
				if !strings.Contains("\n"+stdout, want) {
					t.Errorf("%s has no %q:\n%s", command, want, stdout)
				}
			}
			t.Logf("%s: exit %d\n%s", command, code, stdout)
		}
		if stdout, _, _ := asUser("status"); !strings.Contains(stdout, "/etc/containerd/certs.d/"+otherName+"/hosts.toml\n") {
			t.Errorf("the status does not show that a file is in place:\n%s", stdout)
		}
		if stdout, _, _ := asUser("plan"); strings.Contains(stdout, "\n--- ") {
			t.Errorf("after apply there are changes:\n%s", stdout)
		}
		// What only root may do fails with the reason, and changes nothing.
		before := r.takeTree(t)
		for _, command := range []string{"apply", "revert"} {
			if _, stderr, code := asUser(command); code != 1 || !strings.Contains(stderr, "hint: run as root\n") {
				t.Errorf("%s: exit %d\n%s", command, code, stderr)
			}
		}
		r.sameTree(t, "after apply and revert by a user", before)
		r.do(t, 0, "revert")
	})
}
