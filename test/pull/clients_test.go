package pull_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// name is the registry in the references of every client but Docker, whose
// mirrors serve docker.io alone.
const name = "reg.test"

// stage is one sidemirror with the engines configured for it.
type stage struct {
	sidemirror *harness.Sidemirror
	containerd *engine.Containerd
	docker     *engine.Docker
	// login is what the clients themselves know of the registry: nil where
	// sidemirror has the credential or none is needed.
	login *registry.Registry
}

// client pulls an image by one of the real clients. suffix is ":tag", "@digest" or
// both. It reports what it has then, by the digests of the bytes, and which of the
// image's it must have.
type client struct {
	name string
	pull func(t *testing.T, s *stage, image registry.Image, suffix string) (got map[string]bool, want []string)
	// both is whether the client takes a tag and a digest in one reference.
	both bool
}

var clients = []client{
	{name: "crane", pull: byCrane, both: true},
	{name: "regctl", pull: byRegctl, both: true},
	{name: "skopeo", pull: bySkopeo}, // "Docker references with both a tag and digest are currently not supported"
	{name: "ctr", pull: byCtr, both: true},
	{name: "cri", pull: byCRI, both: true},
	{name: "docker", pull: byDocker, both: true},
}

// prefixed is the reference by which people name a registry through us.
func (s *stage) prefixed(image registry.Image, suffix string) string {
	return s.sidemirror.Address() + "/" + name + "/" + image.Repository + suffix
}

// credentials is the folder of a docker config.json for host, empty of logins
// where the client has none.
func (s *stage) credentials(t *testing.T, host string) string {
	t.Helper()
	if s.login == nil {
		return t.TempDir()
	}
	return s.login.Login(t, host)
}

func byCrane(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	folder := t.TempDir()
	env := []string{"DOCKER_CONFIG=" + s.credentials(t, s.sidemirror.Address())}
	_, err := process.Run(t.Context(), env, process.Path(t, "crane"), "pull", "--insecure", "--platform=all",
		"--format=oci", s.prefixed(image, suffix), folder)
	if err != nil {
		t.Fatal(err)
	}
	return digests(t, folder), image.All
}

func byRegctl(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	folder := t.TempDir()
	config := filepath.Join(folder, "regctl.json")
	plain := fmt.Appendf(nil, `{"hosts":{%q:{"tls":"disabled"}}}`, s.sidemirror.Address())
	if err := os.WriteFile(config, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"DOCKER_CONFIG=" + s.credentials(t, s.sidemirror.Address()), "REGCTL_CONFIG=" + config}
	_, err := process.Run(t.Context(), env, process.Path(t, "regctl"), "image", "copy",
		s.prefixed(image, suffix), "ocidir://"+filepath.Join(folder, "layout")+":pulled")
	if err != nil {
		t.Fatal(err)
	}
	return digests(t, folder), image.All
}

// bySkopeo takes what the tag names as it is, and copies this platform's image:
// skopeo 1.9 cannot copy an OCI index whole without rewriting it.
func bySkopeo(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	skopeo, folder := process.Path(t, "skopeo"), t.TempDir()
	source := "docker://" + s.prefixed(image, suffix)
	var login []string
	if s.login != nil {
		login = []string{"--authfile", filepath.Join(s.credentials(t, s.sidemirror.Address()), "config.json")}
	}
	raw, err := process.Run(t.Context(), nil, skopeo, append([]string{"inspect", "--raw", "--tls-verify=false", source}, login...)...)
	if err != nil {
		t.Fatal(err)
	}
	target := "dir:" + filepath.Join(folder, "image")
	_, err = process.Run(t.Context(), nil, skopeo, append([]string{"copy", "--preserve-digests", "--src-tls-verify=false", source, target}, login...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "raw"), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return digests(t, folder), append([]string{image.Digest}, image.Platform...)
}

func byCtr(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	user := ""
	if s.login != nil {
		user = s.login.User + ":" + s.login.Password
	}
	if err := s.containerd.Pull(t.Context(), name+"/"+image.Repository+suffix, user); err != nil {
		t.Fatal(err)
	}
	return digests(t, s.containerd.Content), append([]string{image.Digest}, image.Platform...)
}

func byCRI(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	user, password := "", ""
	if s.login != nil {
		user, password = s.login.User, s.login.Password
	}
	pulled, err := cri.Pull(t.Context(), s.containerd.Socket, name+"/"+image.Repository+suffix, user, password)
	if err != nil {
		t.Fatal(err)
	}
	if want := name + "/" + image.Repository + "@" + image.Digest; !slices.Contains(pulled, want) {
		t.Errorf("CRI knows the image as %q, not as %s", pulled, want)
	}
	return digests(t, s.containerd.Content), append([]string{image.Digest}, image.Platform...)
}

// byDocker asks dockerd, which keeps layers unpacked, for the digest that it pulled,
// and hashes its own export: the configuration, and the layers which that names.
func byDocker(t *testing.T, s *stage, image registry.Image, suffix string) (map[string]bool, []string) {
	login := ""
	if s.login != nil {
		login = s.credentials(t, "https://index.docker.io/v1/")
	}
	reference := image.Repository + suffix
	if err := s.docker.Pull(t.Context(), reference, login); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(suffix, "@") {
		reference = image.Repository + "@" + image.Digest
	}
	pulled, err := s.docker.Image(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exported(t.Context(), s.docker, reference, filepath.Join(t.TempDir(), "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range pulled.RepoDigests {
		_, digest, _ := strings.Cut(known, "@")
		got[digest] = true
	}
	return got, append([]string{image.Digest, image.Config}, pulled.RootFS.Layers...)
}

// exported hashes the files of what `docker save` writes.
func exported(ctx context.Context, d *engine.Docker, reference, archive string) (map[string]bool, error) {
	if err := d.Save(ctx, reference, archive); err != nil {
		return nil, err
	}
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := map[string]bool{}
	for reader := tar.NewReader(file); ; {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading what docker saved of %s: %w", reference, err)
		}
		digest, err := sum(reader)
		if err != nil {
			return nil, fmt.Errorf("hashing what docker saved of %s: %w", reference, err)
		}
		found[digest] = true
	}
}
