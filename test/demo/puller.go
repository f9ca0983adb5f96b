package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// puller pulls as containerd does, by its own resolver, and notes every request
// that it sends.
type puller struct {
	resolver remotes.Resolver

	mu       sync.Mutex
	requests []sent
}

// sent is one request of the engine's.
type sent struct {
	host, method, path, query, authorization string

	status     int
	length     int64
	began, end time.Time
}

// pulled is what came of a pull.
type pulled struct {
	digest digest.Digest // of what the tag names
	parts  int
	bytes  int64
}

// newPuller makes a resolver that reads the hosts.toml files below certs.
func newPuller(s *scene, certs string) *puller {
	p := &puller{}
	hosts := config.ConfigureHosts(s.ctx, config.HostOptions{
		HostDir: config.HostDirFromRoot(certs),
		UpdateClient: func(client *http.Client) error {
			base := client.Transport
			if idle, ok := base.(*http.Transport); ok {
				s.Cleanup(idle.CloseIdleConnections)
			}
			client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) { return p.note(base, r) })
			return nil
		},
	})
	p.resolver = docker.NewResolver(docker.ResolverOptions{Hosts: hosts})
	return p
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (p *puller) note(base http.RoundTripper, r *http.Request) (*http.Response, error) {
	one := sent{
		host: r.URL.Host, method: r.Method, path: r.URL.Path, query: r.URL.RawQuery,
		authorization: r.Header.Get("Authorization"), began: time.Now(),
	}
	resp, err := base.RoundTrip(r)
	one.end = time.Now()
	if err == nil {
		one.status, one.length = resp.StatusCode, resp.ContentLength
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, one)
	return resp, err
}

// pull resolves a reference and fetches, one after the other, the index, this
// machine's manifest, and all that it names. Every part is checked by its digest.
func (p *puller) pull(s *scene, reference string) pulled {
	name, top, err := p.resolver.Resolve(s.ctx, reference)
	if err != nil {
		s.Fatalf("resolving %s: %v", reference, err)
	}
	fetcher, err := p.resolver.Fetcher(s.ctx, name)
	s.must(err)
	done := pulled{digest: top.Digest}
	fetch := func(d v1.Descriptor) []byte {
		body, err := fetch(s, fetcher, d)
		if err != nil {
			s.Fatalf("fetching %s of %s: %v", d.Digest, reference, err)
		}
		done.parts++
		done.bytes += int64(len(body))
		return body
	}
	var index v1.Index
	s.must(json.Unmarshal(fetch(top), &index))
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS+"/"+d.Platform.Architecture != platform() {
			continue
		}
		var manifest v1.Manifest
		s.must(json.Unmarshal(fetch(d), &manifest))
		for _, part := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
			fetch(part)
		}
		return done
	}
	s.Fatalf("the demo's image is not for %s", platform())
	return done
}

func fetch(s *scene, fetcher remotes.Fetcher, d v1.Descriptor) ([]byte, error) {
	body, err := fetcher.Fetch(s.ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, d.Size+1))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(content); got != d.Digest {
		return nil, fmt.Errorf("what came is %s", got)
	}
	return content, nil
}
