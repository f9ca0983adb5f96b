package hostconfig

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
)

// builtIn is what containerd from 2.2 on looks at where config_path is not set. Its config
// dump prints that list or, from 2.2.2 on, nothing.
const builtIn = containerdHosts + ":" + dockerHosts

// crossCheck compares what we read in the files with what containerd itself says that it reads:
// the rules for imports, versions and old names of sections change from release to release. Where the two
// disagree containerd is right, and which line of which file to change is not known.
func (c *containerd) crossCheck(ctx context.Context, state *State, conf criConfig) criConfig {
	program := c.planner.binary(c)
	if !c.host.running() || !conf.exists || program == "" || c.another() != "" {
		return conf
	}
	said, ok := c.host.askConfig(ctx, program, c.config, conf.sum)
	if !ok {
		return conf
	}
	if parseVersion(state.Version).atLeast(2, 2) && said.path == builtIn {
		said.path = ""
	}
	ours := conf.path
	if parseVersion(state.Version).atLeast(2, 2) && ours == builtIn {
		ours = ""
	}
	if said.path == ours && said.disabled == conf.disabled {
		return conf
	}
	state.note(fmt.Sprintf("containerd takes config_path to be %s (%s --config %s config dump) and sidemirror reads %s in the same files; containerd is taken at its word, and its configuration is left alone",
		inForce(said), program, c.config, inForce(conf)))
	conf.path, conf.disabled, conf.local, conf.doubtful = said.path, said.disabled, said.local, true
	return conf
}

func inForce(conf criConfig) string {
	if conf.disabled {
		return "nothing, since CRI is off"
	}
	return fmt.Sprintf("%q", conf.path)
}

// askConfig executes containerd's config dump, once for each state of its files. It is
// not told apart whether it fails or is not to be understood: nothing follows from either.
func (h *Host) askConfig(ctx context.Context, program, config, sum string) (conf criConfig, ok bool) {
	program = path.Join(h.Root, program)
	info, err := os.Stat(program)
	if err != nil {
		return conf, false
	}
	key := fmt.Sprint(program, info.Size(), info.ModTime(), config, sum)
	said, known := h.asked[key]
	if !known {
		said = runBounded(ctx, program, "--config", config, "config", "dump")
		h.remember(key, said)
	}
	if strings.TrimSpace(said) == "" {
		return conf, false
	}
	_, err = conf.add("containerd config dump", []byte(said), true)
	return conf, err == nil
}
