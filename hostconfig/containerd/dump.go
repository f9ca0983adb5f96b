package containerd

import (
	"context"
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// builtIn is what containerd from 2.2 on reads if config_path is not set. Its config dump prints that
// list or, from 2.2.2 on, nothing.
const builtIn = hostsFolder + ":" + dockerHosts

// crossCheck compares what sidemirror reads in the files with what containerd says that it reads: the
// rules for imports, versions and old names of sections change from release to release. If the two
// disagree containerd is right, and which line of which file to change is not known. crossCheck returns
// how the configuration is known.
func (c *containerd) crossCheck(ctx context.Context, s *engine.State) engine.Known {
	program := c.Program("containerd")
	if c.Running == nil || !c.conf.exists || program == "" || c.another() != "" {
		return engine.KnownByFiles
	}
	said := config{reader: c.conf.reader}
	text := c.Running.Output(ctx, c.conf.sum, program, "--config", c.config, "config", "dump")
	if strings.TrimSpace(text) == "" {
		return engine.KnownByFiles
	}
	if _, err := said.add("containerd config dump", []byte(text), true); err != nil {
		return engine.KnownByFiles
	}
	same := func(a, b string) bool { return a == b || c.version.AtLeast(2, 2) && unset(a) && unset(b) }
	if c.version.AtLeast(2, 2) && said.path == builtIn {
		said.path = ""
	}
	if same(said.path, c.conf.path) && said.disabled == c.conf.disabled {
		return engine.KnownByProgram
	}
	s.Note(problem.Problem{
		Code: "containerd-config-disputed", Path: c.config,
		Text: fmt.Sprintf("containerd takes config_path to be %s and sidemirror reads %s in the same files: containerd is believed, and its configuration stays as it is",
			inForce(said), inForce(c.conf)),
		Hint: fmt.Sprintf("compare %s --config %s config dump", program, c.config),
	})
	c.conf.path, c.conf.disabled, c.conf.local, c.conf.doubtful = said.path, said.disabled, said.local, true
	return engine.KnownByProgram
}

func unset(path string) bool { return path == "" || path == builtIn }

func inForce(conf config) string {
	if conf.disabled {
		return "nothing, since CRI is off"
	}
	return fmt.Sprintf("%q", conf.path)
}
