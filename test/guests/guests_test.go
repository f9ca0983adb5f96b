package guests

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
)

func TestGuestGetsWhatAnyoneGetsAndNoPrivateImage(t *testing.T) {
	r := newRig(t, false)
	manifest := r.get(r.of(public, "manifests/v1"), "")
	if manifest.Status != http.StatusOK || !bytes.Equal(manifest.Body, image.Bytes) {
		t.Fatalf("a public manifest: %d %v", manifest.Status, manifest.Err)
	}
	if blob := r.get(r.of(public, "blobs/"+image.Blobs[1].Digest.String()), ""); !bytes.Equal(blob.Body, image.Blobs[1].Bytes) {
		t.Errorf("a public layer: %d, %d bytes, %v", blob.Status, len(blob.Body), blob.Err)
	}
	// The login can get the private image, for this host's own engine.
	if own := r.sidemirror.Get(r.of(private, "manifests/v1"), nil); own.Status != http.StatusOK {
		t.Fatalf("the host's engine gets %d: %s", own.Status, own.Body)
	}
	for _, what := range []string{"manifests/v1", "manifests/" + image.Digest.String(), "blobs/" + image.Blobs[1].Digest.String(), "tags/list"} {
		if got := r.get(r.of(private, what), ""); got.Status == http.StatusOK {
			t.Errorf("a guest gets %s of a private repository", what)
		}
	}
	if n := strings.Count(r.sidemirror.Log(), "credential="); n != 1 {
		t.Errorf("the login was used %d times, once by the host's engine", n)
	}
}

func TestGuestReachesSidemirrorByTheNamesOfItsHostAlone(t *testing.T) {
	r := newRig(t, false)
	for host, want := range map[string]int{
		at: http.StatusOK, gateway: http.StatusOK, "host.docker.internal:305": http.StatusOK, "HOST.Containers.Internal": http.StatusOK,
		"localhost:305": http.StatusOK, "evil.test": http.StatusForbidden, "172.30.7.2:305": http.StatusForbidden, "172.30.8.1:305": http.StatusForbidden,
	} {
		if got := r.get("/v2/", host); got.Status != want {
			t.Errorf("by the name %s: %d, want %d: %s", host, got.Status, want, got.Body)
		}
	}
	// The names of guests are no names for others.
	header := http.Header{"Host": {at}}
	if got := r.sidemirror.Get("/v2/", header); got.Status != http.StatusForbidden {
		t.Errorf("this host's engine by the guests' address: %d", got.Status)
	}
}

func TestOnlyGuestsOfTheBridgeAreServedAtItsAddress(t *testing.T) {
	r := newRig(t, false)
	other := network.NewBridge(t, "other", "172.30.8.1/24")
	elsewhere := client(t, other.NewGuest("172.30.8.2"))
	if got := harness.Fetch(elsewhere, http.MethodGet, "http://"+at+"/", nil); got.Status != 0 {
		t.Errorf("a guest of another bridge gets %d", got.Status)
	}
	if got := harness.Fetch(elsewhere, http.MethodGet, "http://172.30.8.1:305/", nil); got.Status != 0 {
		t.Errorf("a bridge that is not named is served: %d", got.Status)
	}
	if got := harness.Fetch(harness.Client(t), http.MethodGet, "http://"+at+"/", nil); got.Status != 0 {
		t.Errorf("this host itself gets %d at the address of the guests", got.Status)
	}
	if got := r.get("/", ""); got.Status != http.StatusOK {
		t.Errorf("the guest itself gets %d", got.Status)
	}
}

func TestGuestWithAnotherAddressOnTheBridgeIsRefused(t *testing.T) {
	r := newRig(t, false)
	foreign := client(t, r.bridge.NewGuest("10.99.0.2"))
	r.bridge.Route("10.99.0.0/24") // responses reach it
	if got := harness.Fetch(foreign, http.MethodGet, "http://"+at+"/", nil); got.Status != 0 {
		t.Errorf("an address of another network gets %d", got.Status)
	}
}

func TestBridgesThatComeAndGoAreServed(t *testing.T) {
	r := newRig(t, false)
	r.bridge.Down()
	r.await("the listener is closed", func() bool { return strings.Contains(r.sidemirror.Log(), "guests are not served there any more") })
	r.bridge.Up()
	r.guest.Plug()
	r.await("the guest is served again", func() bool { return r.get("/", "").Status == http.StatusOK })
	if got := r.get(r.of(public, "manifests/v1"), ""); got.Status != http.StatusOK {
		t.Errorf("a guest of a bridge that returned gets %d", got.Status)
	}
	second := network.NewBridge(t, "br-second", "172.30.9.1/24")
	guest := client(t, second.NewGuest("172.30.9.2"))
	r.await("a new bridge is served", func() bool {
		return harness.Fetch(guest, http.MethodGet, "http://172.30.9.1:305/", nil).Status == http.StatusOK
	})
}

func TestOneGuestCannotTakeTheConnectionsOfTheOthers(t *testing.T) {
	r := newRig(t, false)
	neighbour := client(t, r.bridge.NewGuest("172.30.7.3"))
	open := 0
	for range 200 {
		conn, err := r.guest.Dial(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: " + at + "\r\n\r\n"))
		if n, err := conn.Read(make([]byte, 1)); n == 1 && err == nil {
			open++
		}
	}
	if open != 64 {
		t.Errorf("one guest has %d connections, want 64", open)
	}
	if got := harness.Fetch(neighbour, http.MethodGet, "http://"+at+"/", nil); got.Status != http.StatusOK {
		t.Errorf("its neighbour gets %d: %v", got.Status, got.Err)
	}
	if got := r.sidemirror.Get("/", nil); got.Status != http.StatusOK {
		t.Errorf("the host's engine gets %d", got.Status)
	}
}
