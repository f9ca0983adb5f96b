package hostconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/internal/certtest"
)

func TestCertificatesOfPodmanAreAdopted(t *testing.T) {
	cert, key := certtest.New(t)
	h := toolsHost(t, map[string]string{
		"/etc/containers/certs.d/ca.example/ca.crt":          cert,
		"/etc/docker/certs.d/ca.example/client.cert":         cert, // the first folder counts
		"/etc/docker/certs.d/docker.example:5000/ca.crt":     cert,
		"/etc/containers/certs.d/client.example/client.cert": cert,
		"/etc/containers/certs.d/client.example/client.key":  key,
		"/etc/containers/certs.d/own.example/ca.crt":         cert,
	})
	if err := os.Chmod(h.path("/etc/containers/certs.d/client.example/client.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := tools("ca.example", "docker.example:5000", "client.example", "own.example")
	want.Explicit = []string{"own.example"}
	plan := h.plan(t, want)
	var got []string
	for _, a := range plan.Adopted {
		got = append(got, a.From)
		if len(a.CA) != 1 || len(a.Clients) != 0 {
			t.Errorf("%+v", a)
		}
	}
	if text := strings.Join(got, " "); text != "/etc/containers/certs.d/ca.example /etc/docker/certs.d/docker.example:5000" {
		t.Errorf("adopted from %s", text)
	}
	if plan.note("client-key-private") == nil {
		t.Error("the key that only root can read is not reported")
	}
	h.apply(t, want)
	file := h.get(t, containersimage.File)
	contains(t, file, "ca.example", "docker.example", "own.example")
	if strings.Contains(file, "client.example") {
		t.Errorf("a registry that sidemirror cannot reach is mirrored:\n%s", file)
	}
	want.CopyClientKeys = true
	if plan := h.plan(t, want); len(plan.Adopted) != 3 {
		t.Errorf("with a copy of the key: %+v", plan.Adopted)
	}
}
