package hosts_test

import "github.com/sidemirror/sidemirror/test/engine"

// setting is how a host was configured before apply.
type setting struct {
	name string

	// generations are those that such a host can have; nil means all.
	generations []engine.Generation

	// files are put over what the engines' packages install.
	files map[string]string

	// defaults has config.toml written by `containerd config default`, as its
	// documentation advises.
	defaults bool

	// cri says that config_path is in force already, so that CRI pulls through sidemirror
	// after apply, without a restart.
	cri bool

	// writes are the files that apply writes for config_path on 1.x, and from 2.0 on.
	writes [2]string

	// leaves is why sidemirror leaves config_path alone, in the words of apply.
	leaves string

	// keeps are lines of containerd's own dump of its configuration that must still be
	// there after apply: 1.x lost them to a drop-in (k0s#6547).
	keeps []string

	// store is "containerd" if Docker stores its images there, and empty if a graph driver
	// does.
	store map[engine.Generation]string
}

const (
	config = "/etc/containerd/config.toml"

	withSnapshotter    = "{\n\t\"features\": { \"containerd-snapshotter\": true },\n\t\"log-level\": \"info\"\n}\n"
	withoutSnapshotter = "{\n    \"features\": {\n        \"containerd-snapshotter\": false\n    }\n}"
	criV2              = "version = 2\n# kept\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"reg.test/pause:3\"\n"
)

var settings = []setting{
	{
		name:   "stock",
		writes: [2]string{config, config},
		store:  map[engine.Generation]string{engine.Built: "containerd"},
	},
	{
		name: "config_path",
		files: map[string]string{
			config:                    criV2 + "  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\"\n",
			"/etc/docker/daemon.json": withoutSnapshotter,
		},
		cri: true,
	},
	{
		name:        "containerd-store",
		generations: []engine.Generation{engine.Trixie, engine.Sid},
		files: map[string]string{
			config:                    criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\r\n  SystemdCgroup = true\r\n",
			"/etc/docker/daemon.json": withSnapshotter,
		},
		writes: [2]string{config, config},
		store:  map[engine.Generation]string{engine.Trixie: "containerd", engine.Sid: "containerd"},
	},
	{
		name:        "list",
		generations: []engine.Generation{engine.Sid, engine.Built},
		files: map[string]string{
			config: "version = 3\n\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d' # two\n",
		},
		writes: [2]string{1: config},
		store:  map[engine.Generation]string{engine.Built: "containerd"},
	},
	{
		name:        "list-of-1.x",
		generations: []engine.Generation{engine.Bookworm, engine.Trixie},
		files: map[string]string{
			config: criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
		},
		cri: true,
	},
	{
		name:        "list-pulled-locally",
		generations: []engine.Generation{engine.Sid, engine.Built},
		files: map[string]string{
			config: "version = 3\n[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = true\n" +
				"[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
		},
		cri:   true,
		store: map[engine.Generation]string{engine.Built: "containerd"},
	},
	{
		name: "imports",
		files: map[string]string{
			config:                               "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
			"/etc/containerd/conf.d/20-own.toml": criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
		},
		writes: [2]string{"/etc/containerd/conf.d/20-own.toml", "/etc/containerd/conf.d/99-sidemirror.toml"},
		keeps:  []string{"SystemdCgroup = true", "reg.test/pause:3"},
		store:  map[engine.Generation]string{engine.Built: "containerd"},
	},
	{
		name: "mirrors",
		files: map[string]string{
			config: criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"other.test\"]\nendpoint = [\"https://reg.test\"]\n",
		},
		leaves: "has registry.mirrors: next to it containerd refuses config_path",
		store:  map[engine.Generation]string{engine.Built: "containerd"},
	},
	{
		name:     "config-default",
		defaults: true,
		writes:   [2]string{config, config},
		store:    map[engine.Generation]string{engine.Built: "containerd"},
	},
}
