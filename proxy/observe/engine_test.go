package observe

import "testing"

func TestEnginesAreToldApartByTheirUserAgent(t *testing.T) {
	for userAgent, want := range map[string]string{
		"docker/27.3.1 go/go1.22.7 git-commit/41ca978 kernel/6.1.0 os/linux arch/amd64 UpstreamClient(Docker-Client/27.3.1)": "docker",
		"containerd/v2.1.4": "containerd", "containerd/1.6.20~ds1": "containerd", "libpod/5.4.2": "podman",
		"containers/5.34.2 (github.com/containers/image)": "podman", "Buildah/1.39.3": "buildah",
		"cri-o/1.30.0 go/1.22": "cri-o", "buildkit/v0.12": "buildkit", "skopeo/1.18.0": "skopeo", "sidemirror-pull": "sidemirror",
		"": OtherEngine, "curl/8.0": OtherEngine, "dockery": OtherEngine, "x docker/1": OtherEngine,
	} {
		if got := Engine(userAgent); got != want {
			t.Errorf("%q: %s, want %s", userAgent, got, want)
		}
	}
}
