package registry_test

import (
	"net/http"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The other tests rely on this: a private registry gives its user everything that was pushed, and
// an anonymous client nothing. Otherwise a pull through sidemirror would prove nothing.
func TestAPrivateRegistryOpensToItsUserAlone(t *testing.T) {
	r := registry.Start(t, registry.Options{Private: true})
	pushed := r.Push(t, "alice/app", "v1", registry.Shape{Index: true, Size: 1 << 10})
	crane := process.Path(t, "crane")
	reference := r.Reference("alice/app") + ":v1"

	anonymous := []string{"DOCKER_CONFIG=" + t.TempDir()}
	if out, err := process.Run(t.Context(), anonymous, crane, "digest", "--insecure", reference); err == nil {
		t.Fatalf("an anonymous client got %s", out)
	}
	user := []string{"DOCKER_CONFIG=" + r.Login(t, r.Host)}
	out, err := process.Run(t.Context(), user, crane, "digest", "--insecure", reference)
	if err != nil {
		t.Fatal(err)
	}
	if got := out[:len(out)-1]; got != pushed.Digest {
		t.Errorf("crane sees %s, pushed was %s", got, pushed.Digest)
	}
	if all, ours := r.Requests("/v2/alice/app/manifests/v1"); all == 0 || ours != 0 {
		t.Errorf("the registry's log counts %d requests for the manifest, %d of them sidemirror's", all, ours)
	}
}

func TestAnHTTPSRegistryIsKnownToItsOwnAuthorityAlone(t *testing.T) {
	r := registry.Start(t, registry.Options{Names: []string{"127.0.0.1"}})
	if _, err := http.Get(r.URL.String() + "/v2/"); err == nil {
		t.Fatal("the system's authorities vouch for a certificate made by this test")
	}
	pushed := r.Push(t, "alice/app", "v1", registry.Shape{Size: 1 << 10})
	if len(pushed.All) != 4 {
		t.Errorf("a single manifest with two layers has the digests %q", pushed.All)
	}
}
