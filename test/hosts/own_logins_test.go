package hosts_test

import (
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// What each engine does with a login of its own if sidemirror has none, as docs/security.md says.
func TestAnEnginesOwnLoginServesWhereSidemirrorHasNone(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, own: true, files: map[string]string{
				config: criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
			}})
			r.do(t, 0, "apply")
			user, password := r.upstream.User, r.upstream.Password
			secret := &runtime.AuthConfig{Username: user, Password: password}
			forServer := &runtime.AuthConfig{Username: user, Password: password, ServerAddress: "https://" + otherName}
			docker := viaSidemirror
			if r.info(t).ContainerdStore() {
				docker = fellBack // Docker asks a mirror without any login then
			}
			for _, x := range []struct {
				what string
				pull func(repository, digest string) error
				want by
			}{
				{"CRI with a secret", func(repository, digest string) error {
					return r.host.PullCRIAs(t.Context(), otherName+"/"+repository+":v1", digest, secret)
				}, viaSidemirror},
				{"CRI with a secret for a server", func(repository, digest string) error {
					return r.host.PullCRIAs(t.Context(), otherName+"/"+repository+":v1", digest, forServer)
				}, fellBack},
				{"docker after docker login", func(repository, digest string) error {
					return r.host.PullDockerAs(t.Context(), repository, "v1", digest, user, password)
				}, docker},
			} {
				if got := r.pulled(t, x.pull); got != x.want {
					t.Errorf("%s went %s, want %s", x.what, got, x.want)
				}
			}
			r.onlyTheSecretOpens(t, secret)
		})
	}
}

// onlyTheSecretOpens pulls one image by two pods: the one with the secret gets it from the cache the
// second time, and the one without never.
func (r *rig) onlyTheSecretOpens(t *testing.T, secret *runtime.AuthConfig) {
	t.Helper()
	image := r.upstream.Push(t, "alice/pods", "v1", registry.Shape{Size: 1 << 12})
	reference := otherName + "/alice/pods:v1"
	ctx := t.Context()
	for _, which := range []string{"first", "second"} {
		before := r.upstream.Downloads("alice/pods")
		if err := r.host.PullCRIAs(ctx, reference, image.Digest, secret); err != nil {
			t.Fatalf("the %s pull with the secret: %v", which, err)
		}
		if n := r.upstream.Downloads("alice/pods") - before; which == "second" && n != 0 {
			t.Errorf("%d parts of the image were fetched for the second pull", n)
		} else if which == "first" && n == 0 {
			t.Error("nothing was fetched for the first pull")
		}
		if err := r.host.ForgetCRI(ctx, reference); err != nil {
			t.Fatal(err)
		}
		if err := r.host.PullCRI(ctx, reference, image.Digest); err == nil {
			t.Errorf("a pod without the secret gets the image after the %s pull", which)
		}
	}
	r.upstream.Stop()
	if err := r.host.PullCRI(ctx, reference, image.Digest); err == nil {
		t.Error("a pod without the secret gets the image while the registry is away")
	}
}
