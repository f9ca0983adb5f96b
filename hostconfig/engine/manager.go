package engine

import (
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// managers are programs that write configuration files and say so in a comment.
var managers = []string{"Ansible", "kubespray", "Puppet", "Chef", "Salt", "cloud-init", "Terraform"}

// manager returns the program that a comment at the beginning of a file names as its writer.
func manager(data []byte) string {
	head := string(data[:min(len(data), 2048)])
	for line := range strings.Lines(head) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#") || splice.Marked([]byte(line)) {
			continue
		}
		for _, program := range managers {
			if strings.Contains(strings.ToLower(line), strings.ToLower(program)) {
				return program
			}
		}
	}
	return ""
}
