package activity

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

func TestDownloadsAreShownWithTheImageOfTheirPull(t *testing.T) {
	r := New()
	q := request(0, "manifest", tag("3.20"))
	r.RequestEnded(q)
	known := &observe.Download{Key: q.PullKey(), Digest: "sha256:a", Size: 4 << 20, Source: observe.Upstream, From: "registry-1.docker.io", Started: start.Add(time.Second), Trusted: true}
	other := &observe.Download{Key: observe.PullKey{Registry: "ghcr.io", Repository: "a/b"}, Digest: "sha256:b", Size: -1, Source: observe.Cache, Started: start}
	r.DownloadBegan(known)
	r.DownloadBegan(other)
	known.Add(1 << 20)
	list := r.Activity(start.Add(2 * time.Second)).Downloads
	if len(list) != 2 {
		t.Fatalf("%d downloads, want 2", len(list))
	}
	if d := list[0]; d.Image != "ghcr.io/a/b" || d.Size != nil || d.Sent != 0 || d.Source != "cache" {
		t.Errorf("the first is %+v", d)
	}
	if d := list[1]; !strings.HasSuffix(d.Image, ":3.20") || d.Size == nil || *d.Size != 4<<20 || d.Sent != 1<<20 || d.Source != "upstream" || d.From != "registry-1.docker.io" || !d.Trusted {
		t.Errorf("the second is %+v", d)
	}
	if hidden := r.Activity(start).WithoutImages(); len(hidden.Downloads) != 0 {
		t.Errorf("without images: %+v", hidden.Downloads)
	}
	r.DownloadEnded(known)
	r.DownloadEnded(other)
	text, err := json.Marshal(r.Activity(start))
	if err != nil || !strings.Contains(string(text), `"downloads":[]`) {
		t.Errorf("at the end %s, %v", text, err)
	}
}

func TestDownloadsAreBounded(t *testing.T) {
	r := New()
	var all []*observe.Download
	begin := func(trusted bool) {
		d := &observe.Download{Trusted: trusted}
		all = append(all, d)
		r.DownloadBegan(d)
	}
	for range 2 * maxDownloads {
		begin(false)
	}
	if n := len(r.Activity(start).Downloads); n != maxUntrustedDownloads {
		t.Errorf("%d downloads of untrusted callers are held, want %d", n, maxUntrustedDownloads)
	}
	for range 2 * maxDownloads {
		begin(true)
	}
	if n := len(r.Activity(start).Downloads); n != maxDownloads {
		t.Errorf("%d downloads are held, want %d", n, maxDownloads)
	}
	for _, d := range all {
		r.DownloadEnded(d)
	}
	if len(r.downloads.all) != 0 || r.downloads.untrusted != 0 {
		t.Errorf("at the end %d are held, %d of untrusted callers", len(r.downloads.all), r.downloads.untrusted)
	}
}
