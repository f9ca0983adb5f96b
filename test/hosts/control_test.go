package hosts_test

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// Why registry.mirrors is a reason to leave config_path alone: with both containerd does
// without CRI, and the node is lost (containerd #12612).
func TestContainerd24WithMirrorsAndAConfigPathHasNoCRI(t *testing.T) {
	engine.NeedRoot(t)
	const both = criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n" +
		"[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"other.test\"]\nendpoint = [\"https://reg.test\"]\n"
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, files: map[string]string{config: both}})
			if err := r.host.PullCRI(t.Context(), otherName+"/alice/image:v1", ""); err == nil || !strings.Contains(err.Error(), "unknown service runtime.v1.ImageService") {
				t.Errorf("pulling by CRI: %v", err)
			}
			before := r.takeTree(t)
			r.do(t, 0, "apply", "--restart-containerd")
			r.do(t, 0, "revert")
			r.sameTree(t, "after revert", before)
		})
	}
}
