package scripts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// jsonLine is a line of a session whose output is JSON. The keys of that output are checked below it.
var jsonLine = regexp.MustCompile(`(?m)^exits \d+ sidemirror ([^\n]*)--json[^\n]*\n(?:(?:stdout|! stderr|! stdout)[^\n]*\n)*keys stdout$`)

// Each command that prints JSON does so in a session that compares its keys with docs/json.md.
func TestKeysOfEveryCommandsJSONAreChecked(t *testing.T) {
	sessions, err := filepath.Glob("*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var checked []string
	for _, name := range sessions {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range jsonLine.FindAllStringSubmatch(string(text), -1) {
			checked = append(checked, m[1])
		}
	}
	folder := t.TempDir()
	if _, err := process.Run(t.Context(), nil, harness.Binary(t), "man", folder); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(folder, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `\-\-json`) || strings.Contains(string(text), "\n.SH COMMANDS\n") {
			continue
		}
		commands++
		command := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(page), "sidemirror-"), ".1"), "-", " ") + " "
		// The keys of one are those of the configuration, with names of registries among them. The
		// others need a bridge, which test/guests has, and a daemon that systemd runs.
		found := command == "config show " || command == "setup guest " || command == "site status "
		for _, line := range checked {
			found = found || strings.HasPrefix(strings.ReplaceAll(line, "-", " "), command)
		}
		if !found {
			t.Errorf("no session checks the keys of: sidemirror %s--json", command)
		}
	}
	if commands < 12 {
		t.Errorf("only %d commands print JSON", commands)
	}
}
