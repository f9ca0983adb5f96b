// Package containersimage finds out which engines of a host use the library containers/image
// (podman, buildah, skopeo and CRI-O), and plans the one file that they need to pull through
// sidemirror.
package containersimage

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Engines returns the users of the library that can be on a host.
func Engines(h *engine.Host) []engine.Engine {
	return []engine.Engine{&tools{Host: h}, &crio{Host: h}}
}

// program is a program with the library in it.
type program struct {
	name string

	// modern is the first version that reads files as podman 6 does.
	modern version.Version
}

var (
	podman   = program{"podman", version.Version{Major: 6}}
	buildah  = program{"buildah", version.Version{Major: 1, Minor: 44}}
	skopeo   = program{"skopeo", version.Version{Major: 1, Minor: 23}}
	crioTool = program{"crio", version.Version{Major: 1, Minor: 36}}
	programs = []program{podman, buildah, skopeo, crioTool}
)

// tools are podman, buildah and skopeo, which read the files at each run.
type tools struct{ *engine.Host }

// Name is "podman".
func (*tools) Name() string { return engine.Podman }

// Detect looks for the programs. None of them is a daemon.
func (t *tools) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.Podman, Config: folder + "/registries.conf"}
	var others []string
	for _, p := range []program{podman, buildah, skopeo} {
		if t.Program(p.name) == "" {
			continue
		}
		s.Present = true
		v := t.Version(ctx, p.name, p.name, p.name)
		if p.name == engine.Podman {
			s.Version = v
		} else {
			others = append(others, strings.TrimSpace(p.name+" "+v))
		}
	}
	s.Present = s.Present || t.IsNamed(engine.Podman)
	if s.Version == "" && len(others) > 0 {
		s.Version = strings.Join(others, ", ")
	}
	if s.Present {
		s.Known = engine.KnownByFiles
		noteUsers(t.Host, &s, !t.modernOnly(ctx))
	}
	return s, s.Present
}

// Plan asks for the drop-in if one of the programs is installed.
func (t *tools) Plan(ctx context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := plan(ctx, t.Host, s, want)
	if command := t.probeCommand(); command != nil && t.Running != nil && len(p.Edits) > 0 {
		p.Probe = &engine.Probe{Folder: path.Dir(ProbeFile), Command: command}
	}
	return p
}

// probeCommand returns how an installed program pulls a probe: skopeo without any storage, or podman
// into a storage of its own. It is nil for buildah alone, which up to 1.28 makes files in /etc/cni.
func (t *tools) probeCommand() func(scratch, reference string) []string {
	if at := t.Program(skopeo.name); at != "" {
		return func(_, reference string) []string { return []string{at, "inspect", "--raw", "docker://" + reference} }
	}
	at := t.Program(podman.name)
	if at == "" {
		return nil
	}
	return func(scratch, reference string) []string {
		return []string{
			at, "--root", scratch + "/root", "--runroot", scratch + "/run", "--tmpdir", scratch + "/tmp", "--network-config-dir", scratch + "/net",
			"--storage-driver", "vfs", "pull", "--quiet", reference,
		}
	}
}

// modernOnly reports whether all installed programs read files as podman 6 does.
func (t *tools) modernOnly(ctx context.Context) bool {
	old, _ := generations(ctx, t.Host)
	return !old
}

// generations returns which generations of the library are installed. A program of unknown version
// counts as one of each.
func generations(ctx context.Context, h *engine.Host) (old, modern bool) {
	for _, p := range programs {
		if h.Program(p.name) == "" {
			continue
		}
		v := version.Parse(h.Version(ctx, p.name, p.name, p.name))
		isModern := v.Known() && v.AtLeast(p.modern.Major, p.modern.Minor)
		old = old || !isModern
		modern = modern || isModern || !v.Known()
	}
	return old || !modern, modern
}

// plan asks for the drop-in on behalf of one engine.
func plan(ctx context.Context, h *engine.Host, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s, Configs: []engine.Config{{Path: File, Kind: engine.RegistriesConf}, {Path: ProbeFile, Kind: engine.RegistriesConf}}}
	if !s.Present || !slices.Contains(want.Engines, s.Engine) {
		return p
	}
	_, host, _ := strings.Cut(want.Mirror, "://")
	if strings.Contains(host, "[") {
		p.Refuse(File, &problem.Problem{
			Code: "registries-conf-address", Path: File, Text: "cannot name " + host + ": older versions of podman, buildah and skopeo cannot parse an IPv6 address there",
			Hint: "let sidemirror listen on 127.0.0.1 too",
		}, "registries-conf-address")
		return p
	}
	c, err := composeFor(ctx, h, host, adoptable(&p, h, mirrorable(&p, want.Registries), want))
	if err != nil {
		p.Hold = problem.Coded(err, "registries-conf-unreadable")
		return p
	}
	for _, skipped := range c.skipped {
		p.Skip(skipped.prefix, skipped.why)
	}
	for _, note := range c.notes {
		p.State.Note(note)
	}
	if len(c.entries) == 0 {
		return p
	}
	p.State.Through = []engine.Kind{engine.RegistriesConf}
	registries, unverified := c.reached()
	p.Unverified = unverified
	p.Edits = append(p.Edits, engine.Edit{
		Path: File, Entry: entry{entries: c.entries}, Registries: registries,
		Why: "podman, buildah, skopeo and CRI-O ask sidemirror first, and the registry itself if sidemirror does not answer",
	})
	return p
}

// certificates are the folders in which the library looks for a registry's certificates. The first one
// that has a folder for the registry counts.
var certificates = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}

// adoptable returns the registries that sidemirror can reach with the certificates that the library
// uses for them.
func adoptable(p *engine.Plan, h *engine.Host, registries []string, want engine.Desired) (list []string) {
	for _, name := range registries {
		i := slices.IndexFunc(certificates, func(root string) bool { return h.Tree.IsDir(path.Join(root, name)) })
		if i >= 0 {
			f := certsd.Folder{Host: h, Path: certificates[i], Explicit: want.Explicit, CopyKeys: want.CopyClientKeys}
			if !f.AdoptCertificates(p, name) {
				continue
			}
		}
		list = append(list, name)
	}
	return list
}

// mirrorable returns the registries that can be named in the path of a mirror.
func mirrorable(p *engine.Plan, registries []string) (list []string) {
	for _, name := range registries {
		host, _, _ := strings.Cut(name, ":")
		if name != strings.ToLower(name) || strings.Contains(name, "[") || host != "localhost" && !strings.Contains(host, ".") {
			p.Skip(name, problem.Problem{
				Code: "registries-conf-name", Text: fmt.Sprintf("%s cannot be mirrored: podman, buildah and skopeo cannot parse the name of a mirror with it", name),
				Hint: "use a host name in lower case with a dot in it",
			})
			continue
		}
		list = append(list, name)
	}
	return list
}

// composeFor returns the entries that are right for all installed programs.
func composeFor(ctx context.Context, h *engine.Host, host string, registries []string) (*composition, error) {
	old, modern := generations(ctx, h)
	var found *composition
	ports := knownPorts(h.Tree, registries)
	for _, g := range []struct{ installed, modern bool }{{old, false}, {modern, true}} {
		if !g.installed {
			continue
		}
		l, err := readLayout(h.Tree, g.modern)
		if err != nil {
			return nil, err
		}
		if err := l.refuseOld(); err != nil {
			return nil, err
		}
		c := compose(l, host, registries, ports)
		if found != nil && string(splice.NewRegistries(found.entries)) != string(splice.NewRegistries(c.entries)) {
			return nil, &problem.Problem{
				Code: "registries-conf-generations", Path: vendor, Text: "programs of two generations are installed, which read different files: one drop-in cannot be right for both",
				Hint: "upgrade podman, buildah and skopeo together, or copy your settings to " + folder + "/registries.conf",
			}
		}
		found = c
	}
	return found, nil
}

// refuseOld refuses a file of version 1, to which a drop-in adds what podman 6 rejects, and which
// cannot be merged.
func (l *layout) refuseOld() error {
	for _, s := range slices.Concat(l.files, l.user) {
		if s.file.Old {
			return &problem.Problem{
				Code: "registries-conf-v1", Path: s.path, Text: "is a registries.conf of version 1, which sidemirror does not edit and podman 6 rejects",
				Hint: "convert it to version 2: containers-registries.conf(5)",
			}
		}
	}
	return nil
}

// maxUsers bounds what is reported of files that any user can make.
const maxUsers = 8

// noteUsers reports files of users that switch off those of /etc: up to podman 5 a registries.conf
// of the user's own does.
func noteUsers(h *engine.Host, s *engine.State, old bool) {
	if !old || h.Running == nil {
		return
	}
	if name := rootFolder + "/registries.conf"; h.Tree.IsFile(name) {
		s.Mirror = engine.Partial
		s.Problem(problem.Problem{
			Code: "registries-conf-of-root", Path: name, Text: "switches off all files of " + folder + " for root's own podman, buildah and skopeo before podman 6",
			Hint: "move its settings to " + folder + "/registries.conf",
		})
	}
	homes, err := h.Tree.Names("/home")
	if err != nil {
		return
	}
	for _, home := range homes[:min(len(homes), maxUsers)] {
		if name := path.Join("/home", home.Name(), ".config/containers/registries.conf"); h.Tree.IsFile(name) {
			s.Note(problem.Problem{
				Code: "registries-conf-of-user", Path: name, Text: "switches off all files of " + folder + " for that user before podman 6: their pulls go to the registry",
				Hint: "remove it, or add sidemirror as a mirror there",
			})
		}
	}
}

// entry is what sidemirror's drop-in says.
type entry struct{ entries []splice.RegistryEntry }

// Kind is engine.RegistriesConf.
func (entry) Kind() engine.Kind { return engine.RegistriesConf }

// Add returns the drop-in. It refuses a file that has something else in it: a line of another program
// could come to stand in one of sidemirror's tables, or the other way round.
func (e entry) Add(name string, base []byte) ([]byte, error) {
	own := splice.NewRegistries(e.entries)
	if len(strings.TrimSpace(string(base))) == 0 {
		return own, nil
	}
	return nil, &problem.Problem{
		Code: "registries-conf-shared", Path: name, Text: "has settings of another program, which sidemirror does not mix with its own",
		Hint: "move them to a file of their own in that folder",
	}
}

// Settled reports whether the file has the entries as wanted, whatever was added below them.
func (e entry) Settled(_ string, now []byte) bool {
	return strings.HasPrefix(string(now), string(splice.NewRegistries(e.entries)))
}

// Merge returns the entry itself if the other one is the same: the programs share the file.
func (e entry) Merge(other engine.Entry) (engine.Entry, bool) {
	o, ok := other.(entry)
	return e, ok && string(splice.NewRegistries(e.entries)) == string(splice.NewRegistries(o.entries))
}
