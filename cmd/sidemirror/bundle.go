package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	// bundlePart bounds what one program adds to a bundle, in bytes and in time.
	bundlePart  = 4 << 20
	bundleLimit = 30 * time.Second
)

// bundled are the files of a bundle that programs print: with "sidemirror" for this program. Those of
// the running host are left out under another root.
var bundled = []struct {
	name    string
	running bool
	program []string
}{
	{"version.txt", false, []string{"sidemirror", "version"}},
	{"status.json", false, []string{"sidemirror", "status", "--json"}},
	{"plan.json", false, []string{"sidemirror", "plan", "--json"}},
	{"config.toml", true, []string{"sidemirror", "config", "show"}},
	{"units.txt", true, []string{"systemctl", "--no-pager", "--full", "status", "sidemirror.socket", "sidemirror-site.socket", "sidemirror-site-http.socket", "sidemirror.service", "sidemirror-hosts.service"}},
	{"journal.txt", true, []string{"journalctl", "--no-pager", "--lines=2000", "--unit=sidemirror.socket", "--unit=sidemirror-site.socket", "--unit=sidemirror-site-http.socket", "--unit=sidemirror.service", "--unit=sidemirror-hosts.service"}},
	{"kernel.txt", true, []string{"uname", "--all"}},
	{"os-release.txt", true, []string{"cat", "/etc/os-release"}},
}

// secrets are texts that must not leave the host. sidemirror prints none; those of others that it
// quotes are taken out here.
var secrets = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`(://)[^/@\s"']+@`), "${1}[removed]@"},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9+/=._~-]{8,}`), "$1 [removed]"},
	{regexp.MustCompile(`(?i)("?\b(?:auth|identitytoken|registrytoken|password|passwd|secret|access_token|refresh_token|signature|x-amz-[a-z-]+)"?\s*[:=]\s*)("[^"]*"|[^\s,;&}]+)`), `${1}"[removed]"`},
}

// withoutSecrets returns text without what looks like a secret.
func withoutSecrets(text []byte) []byte {
	for _, s := range secrets {
		text = s.pattern.ReplaceAll(text, []byte(s.replacement))
	}
	return text
}

// createBundle creates the file of a bundle. It does not overwrite one.
func createBundle(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, &problem.Problem{Code: "file-exists", Path: path, Text: "exists already", Hint: "give --bundle another name"}
	case err != nil:
		return nil, fmt.Errorf("making a bundle: %w", err)
	}
	return file, nil
}

// discard closes and removes the file of a bundle that is not written, if there is one.
func discard(file *os.File) {
	if file != nil {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}
}

// writeBundle writes a compressed tar file for a report of a bug: the examination, and what this
// program and systemd say about the host.
func (f *hostFlags) writeBundle(ctx context.Context, file *os.File, found examined) (err error) {
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			discard(file)
			err = fmt.Errorf("writing the bundle: %w", err)
		}
	}()
	compressed := gzip.NewWriter(file)
	out := tar.NewWriter(compressed)
	var examination bytes.Buffer
	if err := writeJSON(&examination, found); err != nil {
		return err
	}
	if err := addToBundle(out, "doctor.json", examination.Bytes()); err != nil {
		return err
	}
	for _, part := range bundled {
		if part.running && f.root != "/" {
			continue
		}
		if err := addToBundle(out, part.name, f.bundlePart(ctx, part.program)); err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), compressed.Close())
}

func addToBundle(out *tar.Writer, name string, content []byte) error {
	content = withoutSecrets(content)
	err := out.WriteHeader(&tar.Header{Name: "sidemirror-doctor/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Now()})
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	return err
}

// bundlePart returns what a program prints, and its error below that.
func (f *hostFlags) bundlePart(ctx context.Context, program []string) []byte {
	ctx, cancel := context.WithTimeout(ctx, bundleLimit)
	defer cancel()
	name, args := program[0], program[1:]
	if name == "sidemirror" {
		own, err := os.Executable()
		if err != nil {
			return []byte(err.Error() + "\n")
		}
		name = own
		if f.globals.configPath != "" {
			args = append([]string{"--config", f.globals.configPath}, args...)
		}
		if f.root != "/" && program[1] != "version" {
			args = append(args, "--root", f.root)
		}
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout = &bounded{w: &out, left: bundlePart}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(&out, "\n%v\n", err)
	}
	return out.Bytes()
}

// bounded passes on the first bytes and drops the rest.
type bounded struct {
	w    io.Writer
	left int
}

// Write implements [io.Writer].
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if _, err := b.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
