package guests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/process"
)

// setup runs a command of sidemirror's with the rig's configuration, as a user with that home.
func (r *rig) setup(home string, args ...string) (string, error) {
	line := append(args, "--config", filepath.Join(r.sidemirror.Dir(), "config.toml"))
	return process.Run(r.t.Context(), []string{"HOME=" + home}, harness.Binary(r.t), line...)
}

func TestSetupBuildxWritesTheAddressOfTheBridgeAndTakesItOutAgain(t *testing.T) {
	r := newRig(t, false)
	home := t.TempDir()
	file := filepath.Join(home, ".docker/buildx/buildkitd.default.toml")
	const own = "# mine\n[worker.oci]\n  max-parallelism = 4"
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := r.setup(home, "setup-buildx", "--bridge", r.bridge.Name)
	if err != nil || !strings.Contains(out, file+" is written") || !strings.Contains(out, "docker buildx create") || strings.Contains(out, "note:") {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "[registry.\""+r.registry.Host()+"\"]\n  mirrors = [\""+at+"\"]") || !strings.Contains(string(text), "[registry.\""+at+"\"]\n  http = true") {
		t.Errorf("%v\n%s", err, text)
	}
	if out, err = r.setup(home, "setup-buildx", "--undo"); err != nil || !strings.Contains(out, "without sidemirror again") {
		t.Errorf("%v\n%s", err, out)
	}
	if text, err = os.ReadFile(file); err != nil || string(text) != own {
		t.Errorf("after --undo: %v\n%q", err, text)
	}
}

func TestSetupSaysWhatToDoIfGuestsAreNotServed(t *testing.T) {
	r := newRig(t, false)
	other := network.NewBridge(t, "other", "172.30.8.1/24")
	_, err := r.setup(t.TempDir(), "setup-buildx", "--bridge", other.Name)
	if err == nil || !strings.Contains(err.Error(), "guests.networks does not name it") || !strings.Contains(err.Error(), `networks = ["other"]`) {
		t.Errorf("for a bridge that is not named: %v", err)
	}
	r.sidemirror.Stop()
	out, err := r.setup(t.TempDir(), "setup-buildx", "--bridge", r.bridge.Name)
	if err != nil || !strings.Contains(out, "note: no process listens at "+at+" now") || !strings.Contains(out, "sudo sidemirror apply") {
		t.Errorf("while sidemirror is stopped: %v\n%s", err, out)
	}
}

func TestSetupGuestPrintsTheAddressOfTheBridge(t *testing.T) {
	r := newRig(t, false)
	for kind, want := range map[string]string{
		"dind": "--registry-mirror=http://" + at, "buildx": "mirrors = [\"" + at + "\"]", "kind": "[host.\"http://" + at + "\"]",
		"minikube": "minikube start --registry-mirror=http://" + at, "gitlab-runner": "\"http://" + at + "\"", "lima": "[host.\"http://" + at + "\"]",
	} {
		out, err := r.setup(t.TempDir(), "setup-guest", kind, "--bridge", r.bridge.Name)
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "MIRROR") {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
	out, err := r.setup(t.TempDir(), "setup-guest", "dind", "--bridge", r.bridge.Name, "--json")
	var got map[string]any
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || got["kind"] != "dind" || got["mirror"] != at || got["bridge"] != r.bridge.Name || got["text"] == "" || got["notes"] == nil || len(got) != 5 {
		t.Errorf("%v\n%s", err, out)
	}
	home := t.TempDir()
	if out, err = r.setup(home, "setup-guest", "buildx", "--write", "--bridge", r.bridge.Name); err != nil || !strings.Contains(out, "is written") {
		t.Errorf("--write: %v\n%s", err, out)
	}
}
