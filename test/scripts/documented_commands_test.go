package scripts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

var (
	codeSpan = regexp.MustCompile("`((?:sudo )?sidemirror [a-z][^`]*)`")
	fenced   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	flag     = regexp.MustCompile(`^--[a-z-]+`)
)

// Blocks of commands are run on booted systems: see test/boot. What the prose names must exist too.
func TestCommandsAndFlagsThatTheProseNamesExist(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	help := map[string]string{}
	commands := 0
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, span := range codeSpan.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			commands++
			command, flags := split(strings.Fields(strings.TrimPrefix(span[1], "sudo ")))
			name := strings.Join(command, " ")
			if help[name] == "" {
				help[name], err = process.Run(t.Context(), nil, harness.Binary(t), append(command[1:], "--help")...)
				if err != nil {
					t.Errorf("%s: %q: %v", document, span[1], err)
					continue
				}
			}
			if !strings.Contains(help[name], "\n  "+name) {
				t.Errorf("%s: %q: there is no command %q", document, span[1], name)
			}
			for _, f := range flags {
				if !strings.Contains(help[name], f+" ") {
					t.Errorf("%s: %q: %s has no flag %s", document, span[1], name, f)
				}
			}
		}
	}
	if commands < 50 {
		t.Errorf("only %d commands in %d documents", commands, len(documents))
	}
}

// groups are the commands that have commands.
var groups = []string{"cache", "config", "site"}

// split returns a command with its subcommands, and the flags of a line.
func split(words []string) (command, flags []string) {
	depth := 2
	if len(words) > 2 && slices.Contains(groups, words[1]) {
		depth = 3
		if words[1] == "site" && words[2] == "user" {
			depth = 4
		}
	}
	for _, word := range words[min(depth, len(words)):] {
		if f := flag.FindString(word); f != "" {
			flags = append(flags, f)
		}
	}
	return words[:min(depth, len(words))], flags
}
