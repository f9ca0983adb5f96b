package engine

import (
	"testing"
)

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
