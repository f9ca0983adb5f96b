package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/certtest"
)

// A change of a certificate changes what is handed over.
func TestHowEnginesReachRegistriesIsHandedOver(t *testing.T) {
	root, dir := t.TempDir(), filepath.Join(t.TempDir(), "handover")
	folder := filepath.Join(root, "etc/containerd/certs.d/r.example")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	want, err := Desired(parse(t, ""), Options{Engines: []string{engine.Containerd}})
	if err != nil {
		t.Fatal(err)
	}
	handOver := func() handover.Handover {
		t.Helper()
		plan, err := hostconfig.Make(t.Context(), &hostconfig.Host{Root: root}, want)
		if err != nil {
			t.Fatal(err)
		}
		if err := HandOver(dir, plan); err != nil {
			t.Fatal(err)
		}
		found, err := handover.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := handOver(); len(found.Registries) != 0 {
		t.Errorf("of an empty folder: %+v", found)
	}
	var before string
	for range 2 { // the second one is a rotation
		cert, key := certtest.New(t)
		for name, text := range map[string]string{"ca.crt": cert, "me.cert": cert, "me.key": key} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r := handOver().Registries["r.example"]
		if len(r.CA) != 1 || len(r.Client) != 1 || r.From != strings.TrimPrefix(folder, root) || r.CA[0] == before {
			t.Fatalf("%+v", r)
		}
		before = r.CA[0]
		for file, want := range map[string]string{r.CA[0]: cert, r.Client[0].Cert: cert, r.Client[0].Key: key} {
			if data, err := os.ReadFile(file); err != nil || string(data) != want {
				t.Errorf("%s: %v, %v", file, len(data), err)
			}
		}
	}
	if err := HandOver("", hostconfig.Plan{}); err != nil {
		t.Error(err)
	}
}
