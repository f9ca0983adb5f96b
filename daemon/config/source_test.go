package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestSourceNamesTheFile(t *testing.T) {
	t.Parallel()
	named := []string{"SIDEMIRROR_CONFIG=/srv/named.toml"}
	for _, tt := range []struct {
		source Source
		want   string
	}{
		{Source{}, DefaultFile},
		{Source{Root: "/"}, DefaultFile},
		{Source{Environ: named}, "/srv/named.toml"},
		{Source{Path: "/a.toml", Environ: named}, "/a.toml"},
		{Source{Root: "/mnt", Environ: named}, "/mnt" + DefaultFile},
		{Source{Root: "/mnt", Path: "/a.toml"}, "/a.toml"},
	} {
		if got := tt.source.File(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.source, got, tt.want)
		}
	}
}

func TestTreesFileIsReadInsideTheTreeOnly(t *testing.T) {
	t.Parallel()
	tree, outside := t.TempDir(), t.TempDir()
	file := filepath.Join(tree, DefaultFile)
	if c, err := (Source{Root: tree}).Load(); err != nil || c.Log.Level != "info" {
		t.Errorf("without a file: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[log]\nlevel = 'debug'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := (Source{Root: tree}).Load(); err != nil || c.Log.Level != "debug" || c.File != file {
		t.Errorf("with a file: %v, %v", c, err)
	}
	secret := filepath.Join(outside, "secret.toml")
	if err := os.WriteFile(secret, []byte("[log]\nlevel = 'warn'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), os.Symlink(secret, file)); err != nil {
		t.Fatal(err)
	}
	if c, err := (Source{Root: tree}).Load(); err == nil {
		t.Errorf("a link out of the tree was followed: level %s", c.Log.Level)
	}
	if _, err := (Source{Root: filepath.Join(tree, "none")}).Load(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing tree: %v", err)
	}
}

// Opening a named pipe would wait for its writer.
func TestFileThatIsNoRegularFileIsRefused(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir(), "/dev/null"} {
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestListenIsTakenFromAFaultyConfiguration(t *testing.T) {
	t.Parallel()
	environ := []string{"SIDEMIRROR_LISTEN=127.0.0.1:7"}
	for _, tt := range []struct {
		text    string
		environ []string
		want    string
	}{
		{"listen = ['127.0.0.1:6']\nnonsense = 1\n", nil, "127.0.0.1:6"},
		{"listen = ['127.0.0.1:6']\nnonsense = 1\n", environ, "127.0.0.1:7"},
		{"listen = ['nowhere']\n", nil, "127.0.0.1:305"},
		{"listen = [", nil, "127.0.0.1:305"},
		{"listen = [", environ, "127.0.0.1:7"},
		{"", []string{"SIDEMIRROR_NONSENSE=1", "SIDEMIRROR_LISTEN=127.0.0.1:7"}, "127.0.0.1:7"},
	} {
		s := Source{Path: writeConfig(t, tt.text), Environ: tt.environ}
		_, err := s.Load()
		if err == nil {
			t.Fatalf("%q is not faulty", tt.text)
		}
		if got := s.Listen(err); !slices.Contains(got, netip.MustParseAddrPort(tt.want)) {
			t.Errorf("%q with %q: %v, want %s", tt.text, tt.environ, got, tt.want)
		}
	}
}
