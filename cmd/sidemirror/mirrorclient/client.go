// Package mirrorclient pulls content through a running daemon, as an engine does, and verifies
// it.
package mirrorclient

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

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	responseTimeout = 2 * time.Minute // for the daemon's, which waits for a registry's
	stallTimeout    = 2 * time.Minute // without a byte
	maxErrorBody    = 64 << 10
)

// Client asks a daemon as containerd does: by the repository's path, with the registry as ns.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the daemon at base, which makes up to that many connections.
func New(base string, connections int) *Client {
	return &Client{base, &http.Client{
		// Over loopback neither HTTP_PROXY nor compression is of use.
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   connections,
			ResponseHeaderTimeout: responseTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NotRunningError says that no daemon responds where one should.
type NotRunningError struct{ problem *problem.Problem }

func notRunning(base string, err error) *NotRunningError {
	return &NotRunningError{&problem.Problem{
		Code: "proxy-not-running",
		Text: "the daemon does not answer at " + base,
		Hint: `start it with "systemctl start sidemirror", or run "sidemirror serve" in another terminal`,
		Err:  err,
	}}
}

func (e *NotRunningError) Error() string { return e.problem.Error() }

// Unwrap returns the problem, which has a hint.
func (e *NotRunningError) Unwrap() error { return e.problem }

// get asks for something of a repository. The response is a 200, and the caller closes it.
func (c *Client) get(ctx context.Context, of reference.Named, what string) (*http.Response, error) {
	registry := reference.Domain(of)
	at := c.base + "/v2/" + reference.Path(of) + "/" + what + "?" + url.Values{"ns": {registry}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", strings.Join(oci.ManifestTypes(), ", "))
	req.Header.Set("User-Agent", "sidemirror-pull")
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, notRunning(c.base, syscall.ECONNREFUSED)
	case err != nil:
		return nil, fmt.Errorf("asking the daemon: %w", err)
	case resp.Header.Get("OCI-Namespace") == "" && resp.Header.Get("Docker-Distribution-Api-Version") == "":
		_ = resp.Body.Close()
		return nil, notRunning(c.base, fmt.Errorf("another program responds there, with status %d", resp.StatusCode))
	case resp.StatusCode != http.StatusOK:
		defer resp.Body.Close()
		return nil, refusal(resp, registry)
	}
	return resp, nil
}

// refusal returns the daemon's error.
func refusal(resp *http.Response, registry string) error {
	var said struct {
		Errors []struct{ Code, Message string }
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil || json.Unmarshal(body, &said) != nil || len(said.Errors) == 0 {
		return fmt.Errorf("the daemon responded with status %d", resp.StatusCode)
	}
	text := printable(said.Errors[0].Message)
	if resp.StatusCode == http.StatusUnauthorized {
		hint := fmt.Sprintf("log in with \"sidemirror login %s\", and run this as root", registry)
		if resp.Header.Get("WWW-Authenticate") != "" {
			hint += "; if it has client_auth = \"relay\", that login is not used: pull it with an engine that has one"
		}
		return &problem.Problem{Code: "login-needed", Text: text, Hint: hint}
	}
	return errors.New(text)
}

// printable replaces control characters, which would act on a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// Manifest is what is read of a manifest or of an index.
type Manifest struct {
	Digest    digest.Digest   `json:"-"`
	Manifests []v1.Descriptor `json:"manifests"`
	Config    v1.Descriptor   `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
}

// Manifest fetches a manifest of a repository by tag or digest, and verifies it.
func (c *Client) Manifest(ctx context.Context, of reference.Named, name string) (*Manifest, error) {
	ctx, waiting := patiently(ctx)
	defer waiting.close()
	resp, err := c.get(ctx, of, "manifests/"+name)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", name, err)
	}
	if len(body) > oci.MaxManifest {
		return nil, fmt.Errorf("the manifest %s is longer than %d bytes", name, oci.MaxManifest)
	}
	want, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if d, notTag := digest.Parse(name); notTag == nil {
		want, err = d, nil
	}
	if err != nil || want.Algorithm().FromBytes(body) != want {
		return nil, fmt.Errorf("the manifest %s does not match its digest %s", name, want)
	}
	var m Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("the manifest %s cannot be read: %w", name, err)
	}
	m.Digest = want
	return &m, nil
}

// Blob reads a blob of a repository through and verifies it. It calls read with the number of
// bytes as they come.
func (c *Client) Blob(ctx context.Context, of reference.Named, want v1.Descriptor, read func(int64)) error {
	ctx, waiting := patiently(ctx)
	defer waiting.close()
	resp, err := c.get(ctx, of, "blobs/"+want.Digest.String())
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
			return fmt.Errorf("the %d bytes that came do not match the digest", size)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("it broke off after %d bytes: %w", size, errors.Join(err, context.Cause(ctx)))
		}
	}
}

var errStalled = fmt.Errorf("nothing came for %v", stallTimeout)

// patience ends a request that makes no progress.
type patience struct {
	timer *time.Timer
	end   context.CancelCauseFunc
}

// patiently returns a context that ends when moved is not called in time.
func patiently(ctx context.Context) (context.Context, patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, patience{time.AfterFunc(responseTimeout+stallTimeout, func() { cancel(errStalled) }), cancel}
}

func (p patience) moved() { p.timer.Reset(stallTimeout) }

func (p patience) close() {
	p.timer.Stop()
	p.end(nil)
}
