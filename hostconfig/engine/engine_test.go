package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestAsProblemKeepsCodeAndHint(t *testing.T) {
	coded := &problem.Problem{Code: "own-code", Path: "/x", Text: "text", Hint: "hint"}
	bare := &problem.Problem{Path: "/x", Text: "text"}
	for name, test := range map[string]struct {
		err              error
		code, hint, text string
	}{
		"problem":         {coded, "own-code", "hint", "/x: text"},
		"without a code":  {bare, "code", "", "/x: text"},
		"cause of more":   {fmt.Errorf("reading: %w", coded), "own-code", "hint", "reading: /x: text"},
		"of several":      {errors.Join(coded, errors.New("more")), "own-code", "hint", "/x: text\nmore"},
		"any other error": {errors.New("plain"), "code", "", "plain"},
	} {
		got := AsProblem(test.err, "code")
		if got.Code != test.code || got.Hint != test.hint || got.Error() != test.text || !errors.Is(got, test.err) && got != test.err && got.Err != test.err && name != "without a code" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if bare.Code != "" {
		t.Error("the error itself was changed")
	}
}

func TestProgramsThatSayThatTheyWriteAFile(t *testing.T) {
	for text, want := range map[string]string{
		"# Ansible managed: do not edit\nversion = 2\n":                                       "Ansible",
		"version = 2\n  # This file is managed by Puppet.\n":                                  "Puppet",
		"# written by cloud-init\n":                                                           "cloud-init",
		"version = 2 # no comment of its own line: Ansible\n":                                 "",
		"# sidemirror: this file is sidemirror's; to undo: sidemirror revert, says Ansible\n": "",
		"": "",
	} {
		p := ManagedBy("/x", []byte(text))
		if (p == nil) != (want == "") || p != nil && p.Text != want+" writes this file and may remove sidemirror's entry" {
			t.Errorf("%q: %v", text, p)
		}
	}
}
