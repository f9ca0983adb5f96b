package hostconfig

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// probeLimit is for one engine. containerd before 2.3 waits for ever for a host that does not answer,
// and one that does not read the probe's file asks the network's name servers.
const probeLimit = 10 * time.Second

// probeOf is a probe of a running engine.
type probeOf struct {
	engine, home string
	engine.Probe
}

// title is the engine's name for a person.
func (q probeOf) title() string { return (&engine.State{Engine: q.engine, Home: q.home}).Title() }

// probeAll asks the engines for which something was written or that were restarted. What they answer
// is reported, and undoes nothing.
func (a *applier) probeAll(ctx context.Context, plan Plan) {
	for _, q := range plan.probes {
		restarted := q.home == "" && slices.Contains(a.result.Signals, live.Signal{Engine: q.engine, Verb: live.Restart})
		concerns := func(c Change) bool {
			return c.Engine == q.engine && c.home == q.home && slices.Contains(a.result.Written, c.Path)
		}
		pull := a.puller(ctx, q)
		if pull == nil || q.AfterRestart && !restarted || !restarted && !slices.ContainsFunc(plan.Changes, concerns) {
			continue
		}
		heard, err := a.probe(ctx, q, pull)
		switch {
		case heard:
			a.result.Probed = append(a.result.Probed, fmt.Sprintf("%s reads %s files in %s", q.title(), q.kind(), q.Folder))
		case errors.Is(err, socket.ErrUnreachable) || ctx.Err() != nil:
		default:
			text := err.Error()
			a.result.Warnings = append(a.result.Warnings, &problem.Problem{
				Code: "probe-failed", Path: q.Folder,
				Text: fmt.Sprintf("%s was asked to pull a probe image and did not read the %s file here; it reported: %s",
					q.title(), q.kind(), strings.ToValidUTF8(text[:min(len(text), 512)], "")),
				Hint: q.hint(),
			})
		}
	}
}

// hint says where to look if the engine does not read the probe's file.
func (q probeOf) hint() string {
	switch {
	case q.home != "":
		return "see config_path in the configuration of " + q.home + "'s containerd; to undo: sidemirror revert"
	case q.engine == engine.Podman:
		return "see the files of registries.conf; to undo: sidemirror revert"
	case q.engine == engine.Containerd:
		return "see config_path in containerd config dump, and journalctl -u containerd; to undo: sidemirror revert"
	}
	return "see journalctl -u docker; to undo: sidemirror revert"
}

// kind is the kind of file that the probe writes.
func (q probeOf) kind() engine.Kind {
	if q.Command != nil {
		return engine.RegistriesConf
	}
	return engine.HostsTOML
}

// puller returns what makes the engine pull, nil if nothing can.
func (a *applier) puller(ctx context.Context, q probeOf) func(ctx context.Context, reference string) error {
	if q.Command != nil {
		return func(ctx context.Context, reference string) error { return a.pullBy(ctx, q, reference) }
	}
	if images, ok := a.daemon(ctx, cmp.Or(q.home, q.engine)).(live.Images); ok {
		return images.Pull
	}
	return nil
}

// pullBy pulls by a program that is no daemon.
func (a *applier) pullBy(ctx context.Context, q probeOf, reference string) error {
	scratch, err := os.MkdirTemp("", "sidemirror-probe-")
	if err != nil {
		return fmt.Errorf("%w: %w", socket.ErrUnreachable, err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	line := q.Command(scratch, reference)
	if a.running.Output(ctx, reference, line[0], line[1:]...) == "" {
		return fmt.Errorf("%s failed", path.Base(line[0]))
	}
	return nil
}

// file returns the file that makes the engine ask the listener at address for a registry.
func (q probeOf) file(registry, address string) (name string, content []byte) {
	if q.Command != nil {
		own := splice.RegistryMirror{Location: address + "/" + registry, Insecure: true}
		return containersimage.ProbeFile,
			splice.NewRegistries([]splice.RegistryEntry{{Prefix: registry, Location: registry, Mirrors: []splice.RegistryMirror{own}}})
	}
	url := "http://" + address
	return path.Join(q.Folder, registry, "hosts.toml"), splice.Hosts{URL: url, Server: url}.File()
}

// probe makes an engine pull from a registry that does not exist, and whose file names a
// listener of this process: an engine that connects there has read that file. The file is in the
// journal like every other, so that it does not outlive a run that is killed.
func (a *applier) probe(ctx context.Context, q probeOf, pull func(context.Context, string) error) (heard bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	p, err := listenForProbe(ctx)
	if err != nil {
		return false, socket.ErrUnreachable
	}
	defer p.close()
	address := p.listener.Addr().String()
	c := Change{Engine: q.engine, Kind: q.kind(), url: "http://" + address}
	c.Path, c.After = q.file(p.registry, address)
	if err := a.place(c); err != nil {
		return false, fmt.Errorf("%w: %w", socket.ErrUnreachable, err)
	}
	defer func() {
		if real, err := a.tree.Resolve(c.Path); err != nil {
			a.fail(c.Path, err)
		} else if err := a.tree.Remove(real, c.After); err != nil {
			a.fail(c.Path, err)
		}
	}()
	pulled := make(chan struct{})
	go func() {
		defer close(pulled)
		err = pull(ctx, p.registry+"/"+p.repository+":probe")
	}()
	select {
	case <-p.heard:
		cancel()
	case <-pulled:
	}
	<-pulled
	select {
	case <-p.heard:
		return true, nil
	default:
	}
	switch {
	case err == nil:
		err = errors.New("it has that image")
	case ctx.Err() != nil:
		err = fmt.Errorf("nothing within %v", a.patience)
	}
	return false, err
}

// place writes a file that is not in the plan.
func (a *applier) place(c Change) error {
	now, err := a.tree.Read(c.Path)
	if err != nil {
		return err
	}
	if err := a.journal.Record(c.edit(), now); err != nil {
		return err
	}
	if err := a.journal.Save(); err != nil {
		return err
	}
	return a.put(now, c)
}

// probe is a registry on loopback that has nothing.
type probe struct {
	registry, repository string // names that no other program can guess
	listener             net.Listener
	server               *http.Server
	heard                chan struct{} // closed when it was asked for that repository
	once                 sync.Once
	served               chan struct{}
}

// probeDomain is of a kind that never is in the DNS (RFC 6761, section 6.4).
const probeDomain = ".sidemirror.invalid"

func listenForProbe(ctx context.Context) (*probe, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	random := strings.ToLower(rand.Text())
	p := &probe{registry: "probe-" + random[:13] + probeDomain, repository: "probe-" + random[13:], listener: l,
		heard: make(chan struct{}), served: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadTimeout: probeLimit, WriteTimeout: probeLimit, MaxHeaderBytes: 64 << 10}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(l) // ends with close
	}()
	return p, nil
}

func (p *probe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v2/"+p.repository+"/") || strings.HasPrefix(r.URL.Path, "/v2/"+p.registry+"/"+p.repository+"/") {
		p.once.Do(func() { close(p.heard) })
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/v2/" { // containers/image goes no further if that is missing
		_, _ = io.WriteString(w, "{}")
		return
	}
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"this is sidemirror's probe"}]}`)
}

func (p *probe) close() {
	_ = p.server.Close()
	<-p.served
}
