// Prose checks the language of the repository: the words that CONTRIBUTING.md asks for in what a
// person reads, and the width of prose.
//
//	prose [FOLDER]    checks the files that git tracks below FOLDER (default: this folder)
//
// It reads Markdown, HTML, manual pages, unit files, TOML, shell scripts, and the comments and
// strings of Go files. It prints one line per finding and exits with 1 if there is one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	folder := "."
	if len(os.Args) > 1 {
		folder = os.Args[1]
	}
	findings, err := check(context.Background(), folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(2)
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		fmt.Fprintf(os.Stderr, "prose: %d findings; CONTRIBUTING.md says how to write\n", len(findings))
		os.Exit(1)
	}
}

// check reads every file that git tracks below folder.
func check(ctx context.Context, folder string) ([]finding, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", folder, "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the files: %w", err)
	}
	var all []finding
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		read := readerFor(name)
		if read == nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, name))
		if os.IsNotExist(err) {
			continue // deleted, and the deletion is not committed yet
		} else if err != nil {
			return nil, err
		}
		lines, err := read(name, data)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			all = append(all, l.findings(name)...)
		}
	}
	return all, nil
}
