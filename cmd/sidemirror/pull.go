package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sidemirror/sidemirror/daemon/config"
)

const maxJobs = 64

func newPullCommand(g *globals) *cobra.Command {
	var platforms []string
	var jobs int
	cmd := &cobra.Command{
		Use:   "pull IMAGE…",
		Short: "Fetch images into the cache, so that engines have them at once",
		Long: `Have the running daemon fetch images into its cache, from which engines then pull
them at once. They are read through to verify their digests, and are not given to any engine.

Of an image for several platforms this host's is fetched, with all its variants, or those
that --platform names. As root the daemon's logins are used; others are anonymous.`,
		Example: `  sidemirror pull alpine:3.20 ghcr.io/acme/app@sha256:…
  sidemirror pull --platform linux/amd64,linux/arm64 registry.k8s.io/pause:3.10`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := parseImages(args)
			if err != nil {
				return flagError(cmd, err)
			}
			want, err := parsePlatforms(platforms)
			if err == nil && (jobs < 1 || jobs > maxJobs) {
				err = fmt.Errorf("--jobs is from 1 to %d", maxJobs)
			}
			if err != nil {
				return flagError(cmd, err)
			}
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			return pullAll(cmd, c, refs, want, jobs)
		},
	}
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "these `platforms`, as linux/arm64 or linux/arm/v7, or \"all\" (default this host's)")
	cmd.Flags().IntVar(&jobs, "jobs", 4, "how many layers are fetched at once")
	return cmd
}

// parseImages reads the names as docker completes them.
func parseImages(args []string) ([]reference.Named, error) {
	var refs []reference.Named
	for _, text := range args {
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not the name of an image: %w", text, err)
		}
		refs = append(refs, reference.TagNameOnly(named))
	}
	return refs, nil
}

// platforms are those that are wanted; none is all.
type platforms []v1.Platform

var platformForm = regexp.MustCompile(`^([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?$`)

func parsePlatforms(texts []string) (platforms, error) {
	if len(texts) == 0 {
		return platforms{{OS: "linux", Architecture: runtime.GOARCH}}, nil
	}
	var all platforms
	for _, text := range texts {
		if text == "all" && len(texts) == 1 {
			return nil, nil
		}
		m := platformForm.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf(`--platform %q is not a platform; write it as "linux/arm64" or "linux/arm/v7", or "all" alone`, text)
		}
		all = append(all, v1.Platform{OS: m[1], Architecture: m[2], Variant: m[3]})
	}
	return all, nil
}

// wants reports whether what an index says of a manifest is wanted. What is said to
// be for no platform is for each.
func (p platforms) wants(is *v1.Platform) bool {
	return len(p) == 0 || is == nil || slices.ContainsFunc(p, func(want v1.Platform) bool {
		return want.OS == is.OS && want.Architecture == is.Architecture && (want.Variant == "" || want.Variant == is.Variant)
	})
}

func platformText(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	return strings.Trim(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// pullAll pulls one image after another. One that fails does not keep the others.
func pullAll(cmd *cobra.Command, c *config.Config, refs []reference.Named, want platforms, jobs int) error {
	if c.Cache.Dir == "" {
		return fmt.Errorf("nothing would be kept: cache.dir is \"\" in the configuration (%s)", c.File)
	}
	base, err := mirrorURL(c)
	if err != nil {
		return err
	}
	p := &puller{cmd: cmd, client: newMirrorClient(base, jobs), platforms: want, jobs: jobs, dir: c.Cache.Dir}
	defer p.client.close()
	failed := 0
	for _, ref := range refs {
		err := p.pull(cmd.Context(), ref)
		if _, ok := errors.AsType[*notRunningError](err); ok {
			return err // and so will the others
		}
		if err != nil {
			failed++
			fmt.Fprintf(cmd.ErrOrStderr(), "sidemirror: pulling %s: %v\n", ref, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s not pulled", failed, several(len(refs), "image"))
	}
	return nil
}

// puller pulls images through the daemon.
type puller struct {
	cmd       *cobra.Command
	client    *mirrorClient
	platforms platforms
	jobs      int
	dir       string // of the cache
}

// Bounds of one image.
const (
	maxNesting   = 4
	maxManifests = 256
	maxBlobs     = 4096
)

// pull pulls one image: its manifests, and then the blobs that they list.
func (p *puller) pull(ctx context.Context, ref reference.Named) error {
	begun := time.Now()
	im := &pulled{puller: p, repository: repositoryOf(ref), seen: map[digest.Digest]bool{}}
	name := ""
	if d, ok := ref.(reference.Digested); ok {
		name = d.Digest().String()
	} else if t, ok := ref.(reference.Tagged); ok {
		name = t.Tag()
	}
	if err := im.manifest(ctx, name, "", 0); err != nil {
		return err
	}
	what := strings.Join(im.platformNames, ",")
	if what != "" {
		what += ", "
	}
	fmt.Fprintf(p.cmd.OutOrStdout(), "%s: %s%s, %s\n", ref, what, several(len(im.blobs), "part"), bytesText(im.size))
	bar := newProgress(p.cmd.ErrOrStderr(), im.size, ref.String())
	err := im.fetch(ctx, bar)
	bar.end()
	if err == nil {
		err = im.kept(ctx)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.cmd.OutOrStdout(), "%s: pulled in %v\n", ref, time.Since(begun).Round(time.Millisecond))
	return nil
}

// pulled is an image as far as it is known.
type pulled struct {
	*puller
	repository    repository
	seen          map[digest.Digest]bool
	manifests     int
	blobs         []v1.Descriptor
	size          int64 // of the blobs, as the manifests say
	platformNames []string
}

// manifest fetches a manifest and those that it leads to, and takes in their blobs.
func (im *pulled) manifest(ctx context.Context, name, platform string, depth int) error {
	if im.manifests++; im.manifests > maxManifests || depth > maxNesting {
		return fmt.Errorf("it has more than %d manifests, or they are nested deeper than %d", maxManifests, maxNesting)
	}
	m, err := im.client.manifest(ctx, im.repository, name)
	if err != nil {
		return err
	}
	if len(m.Manifests) == 0 {
		if platform != "" {
			im.platformNames = append(im.platformNames, platform)
		}
		return im.take(append(m.Layers, m.Config))
	}
	var there []string
	found := false
	for _, child := range m.Manifests {
		there = append(there, platformText(child.Platform))
		if !im.platforms.wants(child.Platform) || im.seen[child.Digest] {
			continue
		}
		found, im.seen[child.Digest] = true, true
		if err := child.Digest.Validate(); err != nil {
			return fmt.Errorf("the index lists the digest %.100q: %w", child.Digest, err)
		}
		if err := im.manifest(ctx, child.Digest.String(), platformText(child.Platform), depth+1); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("it has nothing for this platform, only %s (see --platform)", printable(strings.Join(there, ", ")))
	}
	return nil
}

// take takes blobs in, each once, but for those that are not the registry's.
func (im *pulled) take(blobs []v1.Descriptor) error {
	for _, b := range blobs {
		if b.Digest == "" || len(b.URLs) > 0 || im.seen[b.Digest] {
			continue
		}
		if err := b.Digest.Validate(); err != nil || b.Size < 0 {
			return fmt.Errorf("a manifest lists the digest %.100q with %d bytes: %w", b.Digest, b.Size, cmp.Or(err, errors.New("that cannot be")))
		}
		im.seen[b.Digest] = true
		im.blobs = append(im.blobs, b)
		im.size += b.Size
	}
	if len(im.blobs) > maxBlobs {
		return fmt.Errorf("it has more than %d layers", maxBlobs)
	}
	return nil
}

// fetch fetches the blobs, several at a time. Where one fails the others go on: what
// is kept already makes the next try shorter.
func (im *pulled) fetch(ctx context.Context, bar *progress) error {
	var group errgroup.Group
	group.SetLimit(im.jobs)
	for _, b := range im.blobs {
		group.Go(func() error {
			if err := im.client.blob(ctx, im.repository, b, bar.add); err != nil {
				return fmt.Errorf("%s: %w", b.Digest, err)
			}
			if bar.bar == nil {
				bar.line(im.cmd.OutOrStdout(), "  %s  %s", b.Digest, bytesText(b.Size))
			}
			return nil
		})
	}
	return group.Wait()
}

// Blobs get their names on disk a moment after they were sent.
const (
	commitTimeout = 10 * time.Second
	commitPause   = 20 * time.Millisecond
)

// kept sees to it that the daemon could keep what it sent, where we may look into its
// folder: on a full disk it goes on sending, and says so in its log alone.
func (im *pulled) kept(ctx context.Context) error {
	d, err := openCacheAt(im.dir)
	if err != nil {
		return nil //nolint:nilerr // who may not look, or has another host's configuration, is no worse off
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for {
		missing := 0
		for _, b := range im.blobs {
			if !d.HasBlob(b.Digest) {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s of %d not kept in %s, which may be full; the daemon's log says why", several(missing, "part"), len(im.blobs), im.dir)
		case <-time.After(commitPause):
		}
	}
}
