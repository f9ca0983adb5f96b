package engine

import (
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// programFolders are the only ones in which engines are looked for, and from which they are run.
var programFolders = []string{"/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/bin"}

// Program returns the path of a program of the host, or "".
func (h *Host) Program(name string) string {
	for _, folder := range programFolders {
		if at := path.Join(folder, name); h.Tree.IsFile(at) {
			return at
		}
	}
	return ""
}

// Installed reports whether an engine is on the host: its program is, or it was named. In a tree
// its configuration's folder is enough, because an image may get its engine later. On a running
// host it is not, since that folder outlives an engine that was removed.
func (h *Host) Installed(name, program, folder string) bool {
	return h.Program(program) != "" || h.Running == nil && h.Tree.IsDir(folder) || h.IsNamed(name)
}

// IsNamed reports whether an engine counts as installed because it was named, now or in a run
// before that configured it.
func (h *Host) IsNamed(name string) bool {
	return slices.Contains(h.Named, name) || slices.Contains(h.Journal.Named, name)
}

// Version returns the version of an installed program, asked of itself or, in a tree, of the
// package database. It is empty if it cannot be found out.
func (h *Host) Version(ctx context.Context, name, program string, packages ...string) string {
	if said, ok := h.Versions[name]; ok {
		return version.Find(said)
	}
	if at := h.Program(program); h.Running != nil && at != "" {
		if said := version.Find(h.Running.Output(ctx, "", at, "--version")); said != "" {
			return said
		}
	}
	f, err := h.Tree.Read("/var/lib/dpkg/status")
	if err != nil {
		return ""
	}
	return version.Package(f.Data, packages...)
}

// ManagedBy returns a note if the beginning of a file says that a program writes it, which may
// take sidemirror's entry out again.
func ManagedBy(file string, data []byte) *problem.Problem {
	program := manager(data)
	if program == "" {
		return nil
	}
	return &problem.Problem{
		Code: "file-managed", Path: file, Text: fmt.Sprintf("%s writes this file and may remove sidemirror's entry", program),
		Hint: "let " + program + " write the same entry",
	}
}
