// Derive writes what packages have to bring and what follows from this
// repository: the licences of what is linked into the binary, the changelog in the
// forms of dpkg and rpm, and the manual page of the configuration.
//
//	go run ./derive FOLDER
//
// VERSION and SOURCE_DATE_EPOCH are what is packaged, and when it was made.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// maintainer is who answers for the packages, as in nfpm.yaml.
const maintainer = "The sidemirror authors <sidemirror@users.noreply.github.com>"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "derive:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("say the folder to write to, and nothing else")
	}
	version := os.Getenv("VERSION")
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil || version == "" {
		return errors.New("VERSION and SOURCE_DATE_EPOCH must be set; packaging/files.sh sets them")
	}
	at := time.Unix(seconds, 0).UTC()

	out := map[string]string{}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	linked, err := findLinked(ctx, "..")
	if err != nil {
		return err
	}
	licences(linked, at, out)

	changes, err := readChangelog("../CHANGELOG.md", version, at)
	if err != nil {
		return err
	}
	out["changelog"] = debChangelog(changes)
	out["changelog.yaml"] = rpmChangelog(changes)

	page, err := configPage("config.toml", at)
	if err != nil {
		return err
	}
	out["man/sidemirror-config.toml.5"] = page
	for name, text := range out {
		name = filepath.Join(args[0], name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
