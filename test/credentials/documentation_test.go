package credentials

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/blocks"
	"github.com/sidemirror/sidemirror/test/harness"
)

// The clouds cannot be had here, but their lines must at least be a configuration.
func TestExamplesOfTheDocumentationAreConfigurations(t *testing.T) {
	text, err := os.ReadFile("../../docs/credentials.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, b := range blocks.Markdown("docs/credentials.md", string(text)) {
		if b.Language != "toml" {
			continue
		}
		examples++
		file := write(t, filepath.Join(t.TempDir(), "config.toml"), b.Text, 0o600)
		cmd := exec.CommandContext(t.Context(), harness.Binary(t), "--config", file, "config", "show")
		cmd.Env = []string{"HOME=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("line %d: %v\n%s", b.Line, err, out)
		}
		for line := range strings.Lines(b.Text) {
			if strings.HasPrefix(line, "helpers") && !strings.Contains(string(out), strings.TrimSpace(line)) {
				t.Errorf("line %d: not in force: %s", b.Line, line)
			}
		}
	}
	if examples == 0 {
		t.Error("no examples")
	}
}
