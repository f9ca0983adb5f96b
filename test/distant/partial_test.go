package distant

import (
	"archive/tar"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// podmanFiles are podman's configuration. With partial pulls it fetches only those files of a
// zstd:chunked layer that it does not have, by several ranges in one request.
func podmanFiles(mirrored bool) map[string]string {
	files := map[string]string{
		"storage.conf": `[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
`,
		"registries.conf": "[[registry]]\nlocation = \"" + name + "\"\n",
	}
	if mirrored {
		files["registries.conf"] += "[[registry.mirror]]\nlocation = \"127.0.0.1:305/" + name + "\"\ninsecure = true\n"
	}
	return files
}

// measurePartial pulls an image whose layer is zstd:chunked by podman, and then the next version of
// it, which shares most of its files.
func (r *rig) measurePartial(b *testing.B, way string, mirrored bool) {
	b.Helper()
	folder := filepath.Join(r.host.Root, "etc/containers")
	for file, content := range podmanFiles(mirrored) {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var first, next, warm pulls
	for range rounds {
		r.images++
		repository := fmt.Sprintf("alice/image-%d", r.images)
		r.pushChunked(b, repository)
		pull := func(p *pulls, tag string) {
			r.once(b, p, repository, mirrored, func() error { return r.podman(b, "pull", "--quiet", name+"/"+repository+":"+tag) })
		}
		pull(&first, "v1")
		pull(&next, "v2")
		r.forgetPodman(b)
		if mirrored {
			pull(new(pulls), "v1") // only to have its files
			pull(&warm, "v2")
			r.forgetPodman(b)
		}
	}
	first.report(b, "podman", "chunked", way)
	next.report(b, "podman", "partial", way)
	if mirrored {
		warm.report(b, "podman", "partial", "warm")
	}
}

// pushChunked pushes two versions of an image of 100 files, of which five differ.
func (r *rig) pushChunked(b *testing.B, repository string) {
	b.Helper()
	const files, size = 100, 320 << 10
	contents := make([][]byte, files)
	for i := range contents {
		contents[i] = make([]byte, size)
		_, _ = rand.Read(contents[i])
	}
	for _, tag := range []string{"v1", "v2"} {
		archive := filepath.Join(r.host.Root, "srv/"+tag+".tar")
		if err := writeArchive(archive, contents); err != nil {
			b.Fatal(err)
		}
		// Not over the link, which counts.
		reference := r.registry.Reference(repository) + ":" + tag
		for _, args := range [][]string{{"import", "--quiet", "/srv/" + tag + ".tar", reference}, {"push", "--quiet", "--compression-format", "zstd:chunked", reference}} {
			if err := r.podman(b, args...); err != nil {
				b.Fatal(err)
			}
		}
		for i := range 5 {
			_, _ = rand.Read(contents[i*files/5])
		}
	}
	r.forgetPodman(b)
}

func writeArchive(name string, contents [][]byte) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for i, content := range contents {
		if err := archive.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", i), Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (r *rig) podman(b *testing.B, args ...string) error {
	b.Helper()
	line := append([]string{"/usr/bin/podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}, args...)
	stdout, stderr, code, err := r.host.Run(b.Context(), line...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%q: exit code %d\n%s%s", line, code, stdout, stderr)
	}
	return err
}

// forgetPodman removes all of podman's images, so that the next pull fetches everything again.
func (r *rig) forgetPodman(b *testing.B) {
	b.Helper()
	if err := r.podman(b, "system", "reset", "--force"); err != nil {
		b.Fatal(err)
	}
}
