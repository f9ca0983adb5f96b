package egress

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// service is one that pulls images.
type service struct {
	engine string
	unit   string

	// json is Docker's configuration, whose "proxies" count before the environment.
	json string

	// prefix is that of variables which the service passes on to its containerd without it, where
	// they count before those of the same name.
	prefix string

	// file has more variables, which the service reads when it starts.
	file string
}

// services are those whose proxy counts, the first one first. podman has no service: its proxy is that
// of the shell that it is run from.
var services = []service{
	{engine: engine.Docker, unit: "docker.service", json: "/etc/docker/daemon.json"},
	{engine: engine.Docker, unit: "snap.docker.dockerd.service", json: "/var/snap/docker/current/config/daemon.json"},
	{engine: engine.Containerd, unit: "containerd.service"},
	{engine: engine.Containerd, unit: "k3s.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "k3s-agent.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "rke2-server.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "rke2-agent.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "k0scontroller.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "k0sworker.service", prefix: "CONTAINERD_"},
	{engine: engine.Containerd, unit: "snap.microk8s.daemon-containerd.service", file: "/var/snap/microk8s/current/args/containerd-env"},
	{engine: engine.CRIO, unit: "crio.service"},
	{engine: engine.BuildKit, unit: "buildkit.service"},
}

func (s service) of(engines []string) bool { return slices.Contains(engines, s.engine) }

// The variables, each in the order in which its names count (httpproxy.FromEnvironment). There is no
// ALL_PROXY: no engine's library reads it.
var (
	httpNames  = []string{"HTTP_PROXY", "http_proxy"}
	httpsNames = []string{"HTTPS_PROXY", "https_proxy"}
	noNames    = []string{"NO_PROXY", "no_proxy"}
)

// maxValue bounds a setting, in bytes.
const maxValue = 16 << 10

// finder collects what is found.
type finder struct {
	*engine.Host
	units Units // nil if there is no service manager to ask
	found Found
}

func (f *finder) active(ctx context.Context, s service) bool {
	if f.units == nil {
		return false
	}
	active, err := f.units.Active(ctx, s.unit)
	return err == nil && active
}

// setting is one value, and where it is set.
type setting struct{ value, from string }

// environment is that of a service, by the variables' names.
type environment map[string]setting

func (e environment) add(variables map[string]string, from string) {
	for name, value := range variables {
		e[name] = setting{value, from}
	}
}

// first returns the first variable that is not empty.
func (e environment) first(names []string) setting {
	for _, name := range names {
		if s := e[name]; s.value != "" {
			return s
		}
	}
	return setting{}
}

// settings returns the proxy of one service, nil if it has none.
func (f *finder) settings(ctx context.Context, s service) *Proxy {
	unit, err := unitfile.Read(f.Tree, s.unit) // also for what is watched
	if err != nil {
		f.note(s.unit, fmt.Errorf("its files cannot be read: %w", err))
	}
	env := f.environment(ctx, s, unit)
	for name, value := range env {
		if short, ok := strings.CutPrefix(name, s.prefix); ok && s.prefix != "" {
			env[short] = value
		}
	}
	http, https, no := env.first(httpNames), env.first(httpsNames), env.first(noNames)
	if s.json != "" {
		f.addDocker(ctx, s, unit, &http, &https, &no)
	}
	var from []string
	for _, v := range []*setting{&http, &https, &no} {
		if len(v.value) > maxValue {
			f.note(v.from, fmt.Errorf("has a proxy setting of more than %d bytes", maxValue))
			*v = setting{}
		}
		if v.value != "" && !slices.Contains(from, v.from) {
			from = append(from, v.from)
		}
	}
	if http.value == "" && https.value == "" {
		return nil
	}
	return &Proxy{HTTP: secret.New(http.value), HTTPS: secret.New(https.value), NoProxy: no.value, From: strings.Join(from, " and ")}
}

// environment returns the variables of a service: as systemd has them in force or, where it cannot be
// asked, as the unit's files have them.
func (f *finder) environment(ctx context.Context, s service, unit unitfile.Service) environment {
	env := make(environment)
	if !f.ask(ctx, s, env) {
		env.add(unit.Environment, s.unit)
		if unit.Args == nil && s.unit == "docker.service" && f.Tree.IsFile("/etc/init.d/docker") {
			f.addInitScript(env, "/etc/default/docker")
		}
	}
	if s.file != "" && f.Tree.IsFile(s.file) {
		more, _ := unitfile.ReadEnvironment(f.Tree, s.file)
		for name, value := range more { // a shell reads it
			env[strings.TrimPrefix(name, "export ")] = setting{value, s.file}
		}
	}
	return env
}

// ask asks systemd. It reports false if that cannot be asked.
func (f *finder) ask(ctx context.Context, s service, env environment) bool {
	if f.units == nil {
		return false
	}
	set, files, unset, err := f.units.Environment(ctx, s.unit)
	if err != nil {
		return false
	}
	if outdated, err := f.units.Outdated(ctx, s.unit); err == nil && outdated {
		f.found.Outdated = true
	}
	for _, assignment := range set {
		name, value, _ := strings.Cut(assignment, "=")
		env[name] = setting{value, s.unit}
	}
	for _, file := range files {
		more, whole := unitfile.ReadEnvironment(f.Tree, file)
		name := strings.TrimPrefix(file, "-")
		if !whole {
			f.note(s.unit, fmt.Errorf("its EnvironmentFile= %s cannot be read, or can be written by another user than root: a proxy that it sets is not known", name))
		}
		env.add(more, name)
	}
	values := make(map[string]string)
	for name, v := range env {
		values[name] = v.value
	}
	unitfile.Unset(values, unset...)
	maps.DeleteFunc(env, func(name string, _ setting) bool { _, stays := values[name]; return !stays })
	return true
}

// addInitScript adds the variables of a file that an init script reads.
func (f *finder) addInitScript(env environment, file string) {
	for _, name := range slices.Concat(httpNames, httpsNames, noNames) {
		words, err := unitfile.Words(f.Tree, file, name)
		if err != nil {
			f.note(file, err)
			return
		}
		if len(words) > 0 {
			env[name] = setting{strings.Join(words, " "), file}
		}
	}
}

// addDocker lets dockerd's flags and daemon.json count before the environment, as dockerd does
// (moby, daemon/command, configureProxyEnv).
func (f *finder) addDocker(ctx context.Context, s service, unit unitfile.Service, http, https, no *setting) {
	args := unit.Args
	if f.Running != nil && s.unit == "docker.service" {
		if d := f.Running.Daemon(ctx, engine.Docker); d != nil {
			args = d.Args()
		}
	}
	file := s.json
	if name := process.Flag(args, "--config-file"); name != "" {
		file = name
	}
	var said struct {
		Proxies struct {
			HTTP    string `json:"http-proxy"`
			HTTPS   string `json:"https-proxy"`
			NoProxy string `json:"no-proxy"`
		} `json:"proxies"`
	}
	// What is wrong with the file is a problem of Docker's, which is reported there.
	if data, err := f.Tree.ReadTrusted(file); err == nil && data.Exists() {
		if d, err := splice.ReadDaemon(file, data.Data, splice.Version{}); err == nil {
			_ = d.Decode(&said)
		}
	}
	for _, v := range []struct {
		into       *setting
		flag, json string
	}{
		{http, "--http-proxy", said.Proxies.HTTP},
		{https, "--https-proxy", said.Proxies.HTTPS},
		{no, "--no-proxy", said.Proxies.NoProxy},
	} {
		if flag := process.Flag(args, v.flag); flag != "" && !unitfile.Unresolved(flag) {
			*v.into = setting{flag, s.unit}
		}
		if v.json != "" {
			*v.into = setting{v.json, file}
		}
	}
}

func (f *finder) note(path string, err error) {
	f.found.Notes = append(f.found.Notes, &problem.Problem{
		Code: "engine-proxy-unknown", Path: path, Text: err.Error(), Hint: "if the engine uses a proxy, write it in [outbound] of sidemirror's configuration too",
	})
}
