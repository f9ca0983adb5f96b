package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	answerTimeout = 2 * time.Minute // for the daemon's, which waits for a registry's
	stallTimeout  = 2 * time.Minute // without a byte
	maxManifest   = 4 << 20
	maxErrorBody  = 64 << 10
)

// acceptManifests are the kinds of manifest that engines ask for.
var acceptManifests = strings.Join([]string{
	v1.MediaTypeImageIndex,
	v1.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// mirrorClient asks the daemon as containerd does: by the repository's path, with the
// registry as ns.
type mirrorClient struct {
	base string
	http *http.Client
}

type repository struct{ registry, path string }

func repositoryOf(ref reference.Named) repository {
	return repository{reference.Domain(ref), reference.Path(ref)}
}

func newMirrorClient(base string, connections int) *mirrorClient {
	return &mirrorClient{base, &http.Client{
		// Loopback: neither HTTP_PROXY nor compression has a place there.
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   connections,
			ResponseHeaderTimeout: answerTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *mirrorClient) close() { c.http.CloseIdleConnections() }

// notRunningError is that nobody is where the daemon should be.
type notRunningError struct {
	base string
	err  error
}

func (e *notRunningError) Error() string {
	return fmt.Sprintf("the daemon does not answer at %s: start it with \"systemctl start sidemirror\", or \"sidemirror serve\" in another terminal (%v)", e.base, e.err)
}
func (e *notRunningError) Unwrap() error { return e.err }

// get asks for something of a repository's. The answer is a 200, and to be closed.
func (c *mirrorClient) get(ctx context.Context, r repository, what string) (*http.Response, error) {
	at := c.base + "/v2/" + r.path + "/" + what + "?" + url.Values{"ns": {r.registry}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", acceptManifests)
	req.Header.Set("User-Agent", "sidemirror-pull")
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, &notRunningError{c.base, syscall.ECONNREFUSED}
	case err != nil:
		return nil, fmt.Errorf("asking the daemon: %w", err)
	case resp.Header.Get("OCI-Namespace") == "" && resp.Header.Get("Docker-Distribution-Api-Version") == "":
		_ = resp.Body.Close()
		return nil, &notRunningError{c.base, fmt.Errorf("what answers there is something else, with status %d", resp.StatusCode)}
	case resp.StatusCode != http.StatusOK:
		defer resp.Body.Close()
		return nil, refusal(resp, r)
	}
	return resp, nil
}

// refusal says what the daemon says.
func refusal(resp *http.Response, r repository) error {
	var said struct {
		Errors []struct{ Code, Message string }
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil || json.Unmarshal(body, &said) != nil || len(said.Errors) == 0 {
		return fmt.Errorf("the daemon answers %d", resp.StatusCode)
	}
	text := printable(said.Errors[0].Message)
	if resp.StatusCode == http.StatusUnauthorized {
		if resp.Header.Get("WWW-Authenticate") != "" {
			return fmt.Errorf("clients of %s log in themselves (client_auth = \"relay\"), and this command has no login: pull it with an engine", r.registry)
		}
		return fmt.Errorf("%s (log in with \"sidemirror login %s\", and run this as root)", text, r.registry)
	}
	return errors.New(text)
}

// manifestContent is what is read of a manifest or of an index.
type manifestContent struct {
	Manifests []v1.Descriptor `json:"manifests"`
	Config    v1.Descriptor   `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
}

// manifest fetches a manifest by tag or digest, and verifies it.
func (c *mirrorClient) manifest(ctx context.Context, r repository, name string) (*manifestContent, error) {
	ctx, waiting := patiently(ctx)
	defer waiting.close()
	resp, err := c.get(ctx, r, "manifests/"+name)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", name, err)
	}
	if len(body) > maxManifest {
		return nil, fmt.Errorf("the manifest %s is longer than %s", name, bytesText(maxManifest))
	}
	want, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if d, notTag := digest.Parse(name); notTag == nil {
		want, err = d, nil
	}
	if err != nil || want.Algorithm().FromBytes(body) != want {
		return nil, fmt.Errorf("the manifest %s is not its digest %s", name, want)
	}
	var m manifestContent
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("the manifest %s cannot be read: %w", name, err)
	}
	return &m, nil
}

// blob reads a blob through and verifies it. read is told of the bytes as they come.
func (c *mirrorClient) blob(ctx context.Context, r repository, want v1.Descriptor, read func(int64)) error {
	ctx, waiting := patiently(ctx)
	defer waiting.close()
	resp, err := c.get(ctx, r, "blobs/"+want.Digest.String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := want.Digest.Algorithm().Hash()
	var size int64
	for buf := make([]byte, 256<<10); ; {
		n, err := resp.Body.Read(buf)
		waiting.moved()
		sum.Write(buf[:n])
		size += int64(n)
		read(int64(n))
		switch {
		case size > want.Size:
			return fmt.Errorf("it is longer than the %d bytes that the manifest says", want.Size)
		case errors.Is(err, io.EOF) && digest.NewDigest(want.Digest.Algorithm(), sum) != want.Digest:
			return fmt.Errorf("the %d bytes that came are not the digest", size)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("it broke off after %s: %w", bytesText(size), errors.Join(err, context.Cause(ctx)))
		}
	}
}

var errStalled = fmt.Errorf("nothing came for %v", stallTimeout)

// patience ends a request that nothing comes of.
type patience struct {
	timer *time.Timer
	end   context.CancelCauseFunc
}

// patiently gives a context that ends when moved is not called in time.
func patiently(ctx context.Context) (context.Context, patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, patience{time.AfterFunc(answerTimeout+stallTimeout, func() { cancel(errStalled) }), cancel}
}

func (p patience) moved() { p.timer.Reset(stallTimeout) }

func (p patience) close() {
	p.timer.Stop()
	p.end(nil)
}
