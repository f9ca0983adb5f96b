package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// growingCache is what a pull, a start and the cache commands cost with a small cache and with a
// large one, with room on the disk and without.
func (b *bench) growingCache(ctx context.Context) error {
	sizes := []int{166, 1_666, 16_666, 50_000}
	if b.quick {
		sizes = sizes[:2]
	}
	dir, err := os.MkdirTemp(b.dir, "grown-")
	if err != nil {
		return err
	}
	pulls := table{
		title: "Size of the cache: pulls",
		note: fmt.Sprintf("Each repository has one image of %d blobs of 4 KiB. The first byte of cold blobs of 256 KiB, one each 20 ms, with room on the disk, and with "+
			"min_free set to what is free, so that each blob needs an eviction; median and worst of %d. Warm is their second GET. Then 20 layers, 3 at a time. "+
			"The count is the first start after an upgrade, which finds no account of the cache; the last column is a start that finds one.", grownBlobs, coldBlobs),
		head: []string{"blobs", "repositories", "first byte, with room", "worst", "at min_free", "worst", "warm", "worst", "20 layers, with room", "at min_free", "CPU of the count", "resident", "CPU of a start"},
	}
	commands := table{
		title: "Size of the cache: commands",
		note:  "CPU of the whole command, its start included, and the most memory that was resident.",
		head:  []string{"images", "cache ls", "each image", "resident", "cache prune, nothing", "resident", "cache ls NAME", "cache rm NAME", "cache rm --dry-run NAME, shared"},
	}
	var roomy, full []time.Duration
	var warm [2]time.Duration // with the smallest cache and with the largest one
	var oneImage, eachImage time.Duration
	var idle, command int64
	for i, n := range sizes {
		from := 0
		if i > 0 {
			from = sizes[i-1]
		}
		if err := growCache(ctx, filepath.Join(dir, "cache"), from, n); err != nil {
			return err
		}
		g, err := b.grown(ctx, dir)
		if err != nil {
			return fmt.Errorf("%d images: %w", n, err)
		}
		pulls.rows = append(pulls.rows, []string{
			fmt.Sprint(n * grownBlobs), fmt.Sprint(n),
			millis(median(g.roomy)), millis(slices.Max(g.roomy)), millis(median(g.full)), millis(slices.Max(g.full)),
			millis(median(g.warm)), millis(slices.Max(g.warm)), seconds(g.layersRoomy), seconds(g.layersFull), seconds(g.count), mebibytes(g.resident), seconds(g.start),
		})
		c, err := b.grownCommands(ctx, dir, n)
		if err != nil {
			return fmt.Errorf("%d images: %w", n, err)
		}
		each := c.all / time.Duration(n)
		commands.rows = append(commands.rows, []string{
			fmt.Sprint(n), millis(c.all), millis(each), mebibytes(c.resident), millis(c.prune), mebibytes(c.pruneResident), millis(c.one), millis(c.remove), millis(c.removeShared),
		})
		roomy, full = g.roomy, g.full
		if warm[1] = median(g.warm); i == 0 {
			warm[0] = warm[1]
		}
		oneImage, eachImage, idle = max(oneImage, c.one, c.remove, c.removeShared), each, max(idle, g.resident)
		command = max(command, c.resident, c.pruneResident)
	}
	b.tables = append(b.tables, pulls, commands)
	most := fmt.Sprintf("%d blobs", sizes[len(sizes)-1]*grownBlobs)
	b.judge(median(full)-median(roomy) <= 10*time.Millisecond, "first byte at min_free, "+most, "10 ms later than with room",
		millis(median(full)-median(roomy))+", worst "+millis(slices.Max(full)))
	b.judge(warm[1] <= warm[0]+2*time.Millisecond, "first byte of a warm blob, "+most, fmt.Sprintf("2 ms later than with %d", sizes[0]*grownBlobs),
		fmt.Sprintf("%s and %s", millis(warm[1]), millis(warm[0])))
	b.judge(oneImage <= 50*time.Millisecond, "cache ls and rm of one image", "50 ms CPU", millis(oneImage))
	b.judge(eachImage <= 100*time.Microsecond, "cache ls of all", "0.1 ms CPU an image", millis(eachImage))
	b.judge(idle <= 30*mib, "resident after the count, "+most, "30 MiB", mebibytes(idle))
	b.judge(command <= 64*mib, "resident memory of cache ls and prune, "+most, "64 MiB", mebibytes(command))
	return os.RemoveAll(dir)
}

const (
	grownBlobs = 6 // of each image
	coldBlobs  = 30
)

// growCache enters the images from up to n in the folder of a cache, in its own layout. All of them
// share their first layer.
func growCache(ctx context.Context, dir string, from, n int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// What a daemon knows of the folder is no longer true.
	err := errors.Join(os.WriteFile(filepath.Join(dir, "VERSION"), []byte("1\n"), 0o600),
		os.RemoveAll(filepath.Join(dir, "holders")), os.RemoveAll(filepath.Join(dir, "USAGE")))
	for _, kind := range []string{"blobs", "manifests"} {
		for first := range 256 {
			err = errors.Join(err, os.MkdirAll(filepath.Join(dir, kind, "sha256", fmt.Sprintf("%02x", first)), 0o700))
		}
	}
	shared := grownBlob("shared by all images")
	err = errors.Join(err, writeGrown(dir, "blobs", shared))
	for i := from; i < n && err == nil; i++ {
		err = errors.Join(ctx.Err(), growImage(dir, i, shared))
	}
	return err
}

func grownBlob(text string) *blob {
	return dataBlob(append(bytes.Repeat([]byte{' '}, 4<<10-len(text)), text...))
}

// grownRepository is the name of the repository of an image.
func grownRepository(i int) string { return fmt.Sprintf("grown.test/team%d/app%d", i/100, i) }

func growImage(dir string, i int, shared *blob) error {
	img := &image{tag: "v1", config: grownBlob(fmt.Sprintf(`{"architecture":"amd64","os":"linux","author":"%d"}`, i)), layers: []*blob{shared}}
	for layer := range grownBlobs - 2 {
		img.layers = append(img.layers, grownBlob(fmt.Sprintf("image %d, layer %d", i, layer)))
	}
	img.seal()
	at := filepath.Join(dir, "repositories", grownRepository(i))
	const learned = `"upstream":"https://grown.test","by":"anonymous","since":"2026-01-01T00:00:00Z"`
	var err error
	for _, kind := range []string{"_tags", "_manifests/sha256", "_blobs/sha256"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(at, kind), 0o700))
	}
	record := func(name, text string) {
		if err == nil {
			err = os.WriteFile(filepath.Join(at, name), []byte(text), 0o600)
		}
	}
	record("_tags/v1", fmt.Sprintf(`[{"digest":%q,"mediaType":%q,"size":%d,"seen":"2026-01-01T00:00:00Z",%s}]`, img.manifest.digest, manifestType, img.manifest.size, learned))
	record("_grants", `[{"upstream":"https://grown.test","who":"anonymous","at":"2026-01-01T00:00:00Z"}]`)
	record("_manifests/sha256/"+hexOf(img.manifest), fmt.Sprintf(`[{"mediaType":%q,%s}]`, manifestType, learned))
	for _, x := range append([]*blob{img.config}, img.layers...) {
		record("_blobs/sha256/"+hexOf(x), "[{"+learned+"}]")
		if x != shared {
			err = errors.Join(err, writeGrown(dir, "blobs", x))
		}
	}
	return errors.Join(err, writeGrown(dir, "manifests", img.manifest))
}

func hexOf(b *blob) string { return strings.TrimPrefix(b.digest, "sha256:") }

func writeGrown(dir, kind string, b *blob) error {
	return os.WriteFile(filepath.Join(dir, kind, "sha256", hexOf(b)[:2], hexOf(b)), b.data, 0o600)
}

// grown is what was measured with one size of a cache.
type grown struct {
	roomy, full, warm       []time.Duration // first bytes
	layersRoomy, layersFull time.Duration
	count, start            time.Duration // CPU
	resident                int64
}

func (b *bench) grown(ctx context.Context, dir string) (g grown, err error) {
	u, err := newUpstream()
	if err != nil {
		return g, err
	}
	defer u.close()
	// The first start counts.
	s, err := b.startGrown(ctx, dir, u, 0)
	if err != nil {
		return g, err
	}
	g.count, g.resident, err = s.settled(ctx)
	s.stop()
	if err != nil {
		return g, err
	}
	for _, atMinFree := range []bool{false, true} {
		keep := int64(0)
		if atMinFree {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				return g, err
			}
			keep = int64(st.Bavail) * st.Bsize
		}
		s, err := b.startGrown(ctx, dir, u, keep)
		if err != nil {
			return g, err
		}
		cpu, _, err := s.settled(ctx)
		if err == nil && atMinFree {
			g.full, _, g.layersFull, err = b.grownPulls(ctx, s, u, "full")
		} else if err == nil {
			g.start = cpu
			g.roomy, g.warm, g.layersRoomy, err = b.grownPulls(ctx, s, u, "roomy")
		}
		s.stop()
		if err != nil {
			return g, err
		}
	}
	return g, nil
}

// startGrown starts sidemirror with the cache in dir, which leaves that many bytes free. Its blobs
// stand for larger ones, and so its max_size is one of a cache with so many.
func (b *bench) startGrown(ctx context.Context, dir string, u *upstream, free int64) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	argv, err := b.sidemirror(dir, address, u)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	changed := strings.Replace(string(text), fmt.Sprintf("min_free = \"%dB\"\n", minFree), fmt.Sprintf("min_free = \"%dB\"\nmax_size = \"1TiB\"\n", free), 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return nil, err
	}
	s := &server{address: address, dir: dir, query: "?ns=" + namespace}
	if s.process, err = spawn(sidemirror, b.logOf(sidemirror), []string{"HOME=" + dir}, argv...); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, address, "/v2/"); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// settled waits until the server has done nothing for two seconds. It returns the CPU that the server
// had used until then, and what is resident.
func (s *server) settled(ctx context.Context) (time.Duration, int64, error) {
	for before, still := time.Duration(-1), 0; ; {
		cpu, err := s.cpu()
		if err != nil {
			return 0, 0, err
		}
		if still++; cpu != before {
			before, still = cpu, 0
		}
		if still == 20 {
			m, err := s.memory()
			return cpu, m.RSS, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
}

// grownPulls fetches blobs one after the other, cold and warm, and then the layers of an image.
func (b *bench) grownPulls(ctx context.Context, s *server, u *upstream, tag string) (cold, warm []time.Duration, layers time.Duration, err error) {
	img := newImage(tag, coldBlobs, 256<<10)
	u.add(img)
	if cold, err = firstBytes(ctx, s, img.layers); err != nil {
		return nil, nil, 0, err
	}
	if warm, err = firstBytes(ctx, s, img.layers); err != nil {
		return nil, nil, 0, err
	}
	img = newImage(tag+" image", 20, 256<<10)
	u.add(img)
	start := time.Now()
	err = inParallel(3, img.layers, func(layer *blob) error { return s.fetch(ctx, s.blob(layer), layer) })
	return cold, warm, time.Since(start), err
}

// firstBytes fetches blobs one after the other, and returns how long each one's first byte took.
func firstBytes(ctx context.Context, s *server, blobs []*blob) (all []time.Duration, err error) {
	w, err := dial(ctx, s.address, 0)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for _, layer := range blobs {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
		t, _, err := w.get(s.blob(layer), time.Now())
		if err != nil {
			return nil, err
		}
		all = append(all, t.First)
	}
	return all, nil
}

// inParallel calls f for each blob, n at a time.
func inParallel(n int, blobs []*blob, f func(*blob) error) error {
	next, failed := make(chan *blob), make(chan error, n)
	for range n {
		go func() {
			var err error
			for x := range next {
				err = errors.Join(err, f(x))
			}
			failed <- err
		}()
	}
	for _, x := range blobs {
		next <- x
	}
	close(next)
	var err error
	for range n {
		err = errors.Join(err, <-failed)
	}
	return err
}

// grownCommand is the CPU of the cache commands.
type grownCommand struct {
	all, prune, one, remove, removeShared time.Duration
	resident, pruneResident               int64 // of ls and prune
}

func (b *bench) grownCommands(ctx context.Context, dir string, images int) (c grownCommand, err error) {
	cache := filepath.Join(dir, "cache")
	run := func(args ...string) (time.Duration, int64, error) {
		cmd := exec.CommandContext(ctx, b.binary, append([]string{"cache", "--dir", cache}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return 0, 0, fmt.Errorf("sidemirror cache %s: %w: %s", strings.Join(args, " "), err, stderr.String())
		}
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss << 10, nil
	}
	// The images that evictions at min_free have left: the last ones.
	name := func(back int) string { return grownRepository(images-back) + ":v" + strconv.Itoa(1) }
	if c.all, c.resident, err = run("ls"); err != nil {
		return c, err
	}
	if c.prune, c.pruneResident, err = run("prune", "--older-than", "520w", "--dry-run"); err != nil {
		return c, err
	}
	if c.one, _, err = run("ls", name(1)); err != nil {
		return c, err
	}
	if c.removeShared, _, err = run("rm", "--dry-run", name(1)); err != nil {
		return c, err
	}
	c.remove, _, err = run("rm", name(2))
	return c, err
}
