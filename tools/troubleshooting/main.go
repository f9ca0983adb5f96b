// Troubleshooting makes docs/troubleshooting.md: an entry for each code that the program may print.
//
//	troubleshooting ROOT    writes ROOT/docs/troubleshooting.md
//
// It finds the codes, and what is printed with them, in the program itself: they are the constants of
// the types of codes. What they mean is in internal/problem/codes.md. A code without an entry there,
// or an entry without a code, is an error.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// The files below the root: where the entries are written, and what is made of them.
const (
	source = "internal/problem/codes.md"
	target = "docs/troubleshooting.md"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	page, err := generate(context.Background(), root)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, target), []byte(page), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "troubleshooting:", err)
		os.Exit(1)
	}
}

// generate returns the page for the program below root.
func generate(ctx context.Context, root string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	found, err := find(ctx, root)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, source))
	if err != nil {
		return "", err
	}
	return page(string(text), found)
}
