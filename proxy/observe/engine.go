package observe

import "strings"

// engines are the programs that pull images, by the beginning of their User-Agent.
var engines = []struct{ prefix, name string }{
	{"docker/", "docker"},
	{"containerd/", "containerd"},
	{"libpod/", "podman"},
	{"podman/", "podman"},
	{"containers/", "podman"}, // the library's own name
	{"buildah/", "buildah"},
	{"cri-o/", "cri-o"},
	{"buildkit/", "buildkit"},
	{"skopeo/", "skopeo"},
	{"nerdctl/", "nerdctl"},
	{"sidemirror", "sidemirror"},
}

// OtherEngine is what [Engine] returns for a client that it does not know.
const OtherEngine = "other"

// Engine returns which engine sends that User-Agent, from a short list of names. It is what the
// client says of itself, and decides nothing.
func Engine(userAgent string) string {
	for _, e := range engines {
		if len(userAgent) >= len(e.prefix) && strings.EqualFold(userAgent[:len(e.prefix)], e.prefix) {
			return e.name
		}
	}
	return OtherEngine
}
