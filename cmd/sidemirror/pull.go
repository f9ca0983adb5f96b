package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sidemirror/sidemirror/cmd/sidemirror/mirrorclient"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const maxJobs = 64

func newPullCommand(g *globals) *cobra.Command {
	var platforms []string
	var jobs int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pull IMAGE…",
		Short: "Fetch images into the cache ahead of time",
		Long: `Make the running daemon fetch images into its cache, so that engines can pull them
from there. The command reads every layer to verify its digest. It gives the images
to no engine.

If an image exists for several platforms, pull fetches the one for this host, with all
its variants, or those that --platform names. The daemon uses its logins if you run
this as root; otherwise you get what an anonymous client would get.`,
		Example: `  sidemirror pull alpine:3.20 ghcr.io/acme/app:1.4
  sidemirror pull --platform linux/amd64,linux/arm64 registry.k8s.io/pause:3.10`,
		Args: someArgs("an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := parseImages(args)
			if err != nil {
				return misused(cmd, err)
			}
			want, err := parsePlatforms(platforms)
			if err == nil && (jobs < 1 || jobs > maxJobs) {
				err = fmt.Errorf("--jobs must be from 1 to %d", maxJobs)
			}
			if err != nil {
				return misused(cmd, err)
			}
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			// If listen names other addresses than systemd's sockets, a proxy may have been started there
			// by hand.
			_ = useSockets(cmd.Context(), c)
			return pullAll(cmd, c, refs, &puller{cmd: cmd, platforms: want, jobs: jobs, dir: c.Cache.Dir, quiet: asJSON})
		},
	}
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "fetch these `platforms`, such as linux/arm64, or \"all\" (default: this host's)")
	cmd.Flags().IntVar(&jobs, "jobs", 4, "fetch up to this `number` of layers at once")
	addJSON(cmd, &asJSON)
	return cmd
}

// parseImages parses image names and completes them as docker does.
func parseImages(args []string) ([]reference.Named, error) {
	var refs []reference.Named
	for _, text := range args {
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an image name: %w", text, err)
		}
		refs = append(refs, reference.TagNameOnly(named))
	}
	return refs, nil
}

// platforms lists the platforms to fetch. An empty list means all.
type platforms []v1.Platform

var platformForm = lazyregexp.New(`^([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?$`)

func parsePlatforms(texts []string) (platforms, error) {
	if len(texts) == 0 {
		return platforms{{OS: "linux", Architecture: runtime.GOARCH}}, nil
	}
	var all platforms
	for _, text := range texts {
		if text == "all" && len(texts) == 1 {
			return nil, nil
		}
		m := platformForm().FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf(`--platform %q is not a platform; write it as "linux/arm64" or "linux/arm/v7", or "all" alone`, text)
		}
		all = append(all, v1.Platform{OS: m[1], Architecture: m[2], Variant: m[3]})
	}
	return all, nil
}

// wants reports whether the manifest of platform is should be fetched. A manifest without a
// platform is for all of them.
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

// pulledJSON is an image in the output of "pull --json" (docs/json.md).
type pulledJSON struct {
	Name      string           `json:"name"`
	Digest    digest.Digest    `json:"digest,omitempty"`
	Platforms []string         `json:"platforms"`
	Parts     int              `json:"parts"`
	Bytes     int64            `json:"bytes"`
	Pulled    bool             `json:"pulled"`
	Problem   *problem.Problem `json:"problem,omitempty"`
}

// pullAll pulls one image after another. If one fails, it continues with the next.
func pullAll(cmd *cobra.Command, c *config.Config, refs []reference.Named, p *puller) error {
	if c.Cache.Dir == "" {
		return fmt.Errorf("the cache is off: cache.dir is \"\" in %s", c.File)
	}
	base, err := c.MirrorURL()
	if err != nil {
		return err
	}
	p.client = mirrorclient.New(base, p.jobs)
	defer p.client.Close()
	images := []pulledJSON{}
	failed := 0
	for _, ref := range refs {
		im, err := p.pull(cmd.Context(), ref)
		if _, ok := errors.AsType[*mirrorclient.NotRunningError](err); ok {
			return err // the others would fail in the same way
		}
		result := pulledJSON{ref.String(), im.digest, append([]string{}, im.platformNames...), len(im.blobs), im.size, err == nil, nil}
		if err != nil {
			failed++
			result.Problem = pullProblem(c, ref, err)
			if !p.quiet {
				fmt.Fprintln(cmd.ErrOrStderr(), problem.Format("sidemirror: ", result.Problem))
			}
		}
		images = append(images, result)
	}
	if p.quiet {
		if err := writeJSON(cmd.OutOrStdout(), map[string]any{"images": images}); err != nil {
			return err
		}
		if failed > 0 {
			return exitSilently(exitFailed)
		}
		return nil
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s could not be pulled", failed, several(len(refs), "image"))
	}
	return nil
}

// pullProblem is why an image could not be pulled, with a hint if its registry may be misspelt.
func pullProblem(c *config.Config, ref reference.Named, err error) *problem.Problem {
	p := problem.Coded(err, "pull-failed")
	p = &problem.Problem{Code: p.Code, Err: fmt.Errorf("pulling %s: %w", ref, err), Hint: problem.Hint(p)}
	if near := didYouMeanRegistry(c, reference.Domain(ref), registryNames(c)); near != "" {
		p.Hint = near
	}
	return p
}

// puller pulls images through the daemon.
type puller struct {
	cmd       *cobra.Command
	client    *mirrorclient.Client
	platforms platforms
	jobs      int
	dir       string // of the cache
	quiet     bool   // print no lines: the result is JSON
}

// line prints a line for a person.
func (p *puller) line(format string, args ...any) {
	if !p.quiet {
		fmt.Fprintf(p.cmd.OutOrStdout(), format+"\n", args...)
	}
}

// Bounds of one image.
const (
	maxNesting   = 4
	maxManifests = 256
	maxBlobs     = 4096
)

// pull pulls one image: its manifests, and then the blobs that they list.
func (p *puller) pull(ctx context.Context, ref reference.Named) (*pulled, error) {
	begun := time.Now()
	im := &pulled{puller: p, ref: ref, seen: map[digest.Digest]bool{}}
	name := ""
	if d, ok := ref.(reference.Digested); ok {
		name = d.Digest().String()
	} else if t, ok := ref.(reference.Tagged); ok {
		name = t.Tag()
	}
	if err := im.manifest(ctx, name, "", 0); err != nil {
		return im, err
	}
	what := strings.Join(im.platformNames, ",")
	if what != "" {
		what += ", "
	}
	p.line("%s: %s%s, %s", ref, what, several(len(im.blobs), "part"), bytesText(im.size))
	bar := newProgress(p.cmd.ErrOrStderr(), im.size, ref.String())
	err := im.fetch(ctx, bar)
	bar.end()
	if err == nil {
		err = im.kept(ctx)
	}
	if err != nil {
		return im, err
	}
	p.line("%s: pulled in %v", ref, time.Since(begun).Round(time.Millisecond))
	return im, nil
}

// pulled is an image, as far as it has been read.
type pulled struct {
	*puller
	ref           reference.Named
	digest        digest.Digest // of what the name stands for
	seen          map[digest.Digest]bool
	manifests     int
	blobs         []v1.Descriptor
	size          int64 // of the blobs, as the manifests say
	platformNames []string
}

// manifest fetches a manifest and the manifests that it lists, and notes their blobs.
func (im *pulled) manifest(ctx context.Context, name, platform string, depth int) error {
	if im.manifests++; im.manifests > maxManifests || depth > maxNesting {
		return fmt.Errorf("the image has more than %d manifests, or they are nested more than %d deep", maxManifests, maxNesting)
	}
	m, err := im.client.Manifest(ctx, im.ref, name)
	if err != nil {
		return err
	}
	if depth == 0 {
		im.digest = m.Digest
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
		return fmt.Errorf("the image does not exist for this platform, only for %s (see --platform)", printable(strings.Join(there, ", ")))
	}
	return nil
}

// take notes blobs, each once. It leaves out those that the manifest says to fetch from elsewhere.
func (im *pulled) take(blobs []v1.Descriptor) error {
	for _, b := range blobs {
		if b.Digest == "" || len(b.URLs) > 0 || im.seen[b.Digest] {
			continue
		}
		if err := b.Digest.Validate(); err != nil || b.Size < 0 {
			return fmt.Errorf("a manifest lists the digest %.100q with %d bytes: %w", b.Digest, b.Size, cmp.Or(err, errors.New("a size cannot be negative")))
		}
		im.seen[b.Digest] = true
		im.blobs = append(im.blobs, b)
		im.size += b.Size
	}
	if len(im.blobs) > maxBlobs {
		return fmt.Errorf("the image has more than %d layers", maxBlobs)
	}
	return nil
}

// fetch fetches the blobs, several at a time. If one fails, the others continue: what is stored
// already makes the next attempt shorter.
func (im *pulled) fetch(ctx context.Context, bar *progress) error {
	var group errgroup.Group
	group.SetLimit(im.jobs)
	for _, b := range im.blobs {
		group.Go(func() error {
			if err := im.client.Blob(ctx, im.ref, b, bar.add); err != nil {
				return fmt.Errorf("%s: %w", b.Digest, err)
			}
			if bar.bar == nil && !im.quiet {
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

// kept checks that the daemon has stored what it sent, if this process may read the cache folder.
// With a full disk the daemon streams without storing, and says so only in its log.
func (im *pulled) kept(ctx context.Context) error {
	d, err := openCacheAt(im.dir)
	if err != nil {
		return nil //nolint:nilerr // without access to the folder there is nothing to check
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
			return fmt.Errorf("%s of %d not stored in %s; the disk may be full, and the daemon's log has the reason", several(missing, "part"), len(im.blobs), im.dir)
		case <-time.After(commitPause):
		}
	}
}
