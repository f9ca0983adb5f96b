package proxy

import (
	"encoding/json"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/testimage"
)

func TestTheTestImageIsServedWithoutAnUpstream(t *testing.T) {
	var asked atomic.Int32
	g := newRig(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	path := "/v2/" + testimage.Repository
	answer := g.do(t, http.MethodGet, path+"/manifests/any-tag?ns=docker.io")
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != v1.MediaTypeImageManifest {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(answer.body, &manifest); err != nil {
		t.Fatal(err)
	}
	named := answer.Header.Get("Docker-Content-Digest")
	if digest.FromBytes(answer.body).String() != named {
		t.Errorf("the digest %s is not that of the manifest", named)
	}
	if head := g.do(t, http.MethodHead, path+"/manifests/"+named+"?ns=docker.io"); head.StatusCode != http.StatusOK || head.ContentLength != int64(len(answer.body)) {
		t.Errorf("HEAD by digest: %d, %d bytes", head.StatusCode, head.ContentLength)
	}
	blobs := map[string]v1.Descriptor{"configuration": manifest.Config, "layer": manifest.Layers[0]}
	for what, d := range blobs {
		blob := g.do(t, http.MethodGet, path+"/blobs/"+d.Digest.String()+"?ns=docker.io")
		if blob.StatusCode != http.StatusOK || digest.FromBytes(blob.body) != d.Digest || int64(len(blob.body)) != d.Size {
			t.Errorf("the %s: %d, %d bytes", what, blob.StatusCode, len(blob.body))
		}
		if what == "configuration" {
			var config v1.Image
			if err := json.Unmarshal(blob.body, &config); err != nil || config.OS != "linux" || config.Architecture != runtime.GOARCH {
				t.Errorf("the configuration is %s (%v)", blob.body, err)
			}
		}
	}
	other := digest.FromString("other").String()
	for _, missing := range []string{"/manifests/" + other, "/blobs/" + other, "/manifests/" + manifest.Config.Digest.String()} {
		if answer := g.do(t, http.MethodGet, path+missing+"?ns=docker.io"); answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", missing, answer.StatusCode)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if g.do(t, http.MethodGet, "/v2/library/other/manifests/any-tag?ns=docker.io"); asked.Load() == 0 {
		t.Error("the upstream is not asked for other images either, so this test shows nothing")
	}
}
