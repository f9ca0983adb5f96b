package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
)

func TestWhatIsHandedOverIsFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "handover")
	addr := freeAddr(t)
	built := make(chan handover.Handover, 8)
	r := begin(t, writeConfig(t, good(addr)+"\n[engine]\nhandover_dir = \""+dir+"\"\n"), nil, func(d *daemon) {
		build := d.build
		d.build = func(c *config.Config, found handover.Handover, at []netip.AddrPort, log *logrus.Logger) (service, error) {
			built <- found
			return build(c, found, at, log)
		}
	})
	if first := <-built; len(first.Registries) != 0 {
		t.Errorf("without a file: %+v", first)
	}
	for _, want := range []handover.Handover{
		{Registries: map[string]handover.Registry{"r.example": {PlainHTTP: true, From: "/x"}}},
		{Registries: map[string]handover.Registry{"r.example": {SkipVerify: true, From: "/x"}}},
	} {
		if err := handover.Write(dir, want, nil); err != nil {
			t.Fatal(err)
		}
		if got := <-built; got.Registries["r.example"].PlainHTTP != want.Registries["r.example"].PlainHTTP {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	// A file that another user could have written is not believed, and ends nothing.
	if err := os.Chmod(handover.Path(dir), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(handover.Path(dir), []byte(`{"version":1,"registries":{"evil.example":{"skip_verify":true}}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := <-built; len(got.Registries) != 0 {
		t.Errorf("believed %+v", got)
	}
	r.cancel()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

func TestTheProxyGetsWhatIsHandedOver(t *testing.T) {
	got := adopted(handover.Handover{Registries: map[string]handover.Registry{
		"r.example": {CA: []string{"/a"}, Client: []handover.KeyPair{{Cert: "/c", Key: "/k"}}, SkipVerify: true, PlainHTTP: true},
	}})["r.example"]
	if got.CA[0] != "/a" || got.Clients[0].Cert != "/c" || got.Clients[0].Key != "/k" || !got.SkipVerify || !got.PlainHTTP {
		t.Errorf("%+v", got)
	}
}
