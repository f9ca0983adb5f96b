package credentials

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
)

// sessionBus is a bus that starts no program: the keyring of the test is the only one on it.
const sessionBus = `<busconfig>
  <type>session</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// Debian's docker-credential-secretservice with GNOME's keyring, on a session bus of their own.
func TestDebiansSecretServiceHelperHasTheLoginThatDockerStored(t *testing.T) {
	home := t.TempDir()
	bus := "unix:path=" + filepath.Join(home, "bus")
	env := []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "DBUS_SESSION_BUS_ADDRESS=" + bus, "PATH=/usr/local/bin:/usr/bin:/bin"}
	start := func(name string, ready func(output string) error, args ...string) {
		t.Helper()
		cmd := exec.Command(process.Path(t, name), args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader("the keyring's own password")
		process.Start(t, name, cmd, ready)
	}
	helper := func(ctx context.Context, action, stdin string) error {
		cmd := exec.CommandContext(ctx, process.Path(t, "docker-credential-secretservice"), action)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", action, err, out)
		}
		return nil
	}
	start("dbus-daemon", func(output string) error {
		if !strings.Contains(output, bus) {
			return errors.New("it does not listen")
		}
		return nil
	}, "--nofork", "--nopidfile", "--print-address=1", "--config-file="+write(t, filepath.Join(home, "bus.conf"), fmt.Sprintf(sessionBus, bus), 0o600))
	start("gnome-keyring-daemon", func(string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return helper(ctx, "list", "")
	}, "--foreground", "--unlock", "--components=secrets", "--control-directory="+home)
	for server, user := range map[string]string{"quay.io": "me", "https://index.docker.io/v1/": "hub"} {
		if err := helper(t.Context(), "store", fmt.Sprintf(`{"ServerURL":%q,"Username":%q,"Secret":%q}`, server, user, canary)); err != nil {
			t.Fatal(err)
		}
	}
	h := real(t, "secretservice", env...)
	for server, want := range map[string]string{"quay.io": "me", "https://index.docker.io/v1/": "hub", "ghcr.io": ""} {
		c, err := h.Get(t.Context(), "secretservice", server)
		if err != nil || c.Username != want {
			t.Errorf("%s: %q, %v", server, c.Username, err)
		}
		if want != "" && c.Password.Reveal() != canary {
			t.Errorf("%s: another secret", server)
		}
	}
	// The service has no session bus. That must not count as anonymous.
	h = real(t, "secretservice")
	if c, err := h.Get(t.Context(), "secretservice", "quay.io"); err == nil || !c.IsZero() || h.Fault() == nil {
		t.Errorf("without a session bus: %q, %v", c.Username, err)
	}
}
