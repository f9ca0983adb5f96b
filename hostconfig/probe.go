package hostconfig

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// probeLimit is for one engine. containerd before 2.3 waits for ever for a host that
// does not answer, and one that does not know ours asks the network's name servers.
const probeLimit = 10 * time.Second

// errNotAsked is of an engine that cannot be asked from here: nothing follows from it.
var errNotAsked = errors.New("it cannot be asked from here")

// ask is a running engine that should look for hosts.toml files in folder.
type ask struct {
	engine, folder string
	socket         string // of CRI's
	restart        bool   // it will not before it is restarted
}

// askAll asks the engines for which something was written or which were restarted.
// What they answer is told, and undoes nothing.
func (a *applier) askAll(ctx context.Context, plan Plan) {
	for _, q := range plan.asks {
		concerns := func(c Change) bool { return c.Engine == q.engine && slices.Contains(a.result.Written, c.Path) }
		if q.restart && !a.restarted {
			continue // what it would say is known
		}
		if !slices.ContainsFunc(plan.Changes, concerns) && !(q.engine == Containerd && a.restarted) {
			continue
		}
		heard, err := a.askOne(ctx, q)
		switch {
		case heard:
			a.result.Asked = append(a.result.Asked, fmt.Sprintf("%s reads hosts.toml files in %s", q.engine, q.folder))
		case errors.Is(err, errNotAsked) || ctx.Err() != nil:
		default:
			text := err.Error()
			a.result.Warnings = append(a.result.Warnings, fmt.Sprintf("%s was asked to pull a probe image, and did not come to us as a hosts.toml file in %s had it; it said: %s; %s",
				q.engine, q.folder, strings.ToValidUTF8(text[:min(len(text), 512)], ""), mendOf(q.engine)))
		}
	}
}

func mendOf(engine string) string {
	if engine == Containerd {
		return "see config_path in containerd config dump, and journalctl -u containerd; to undo: sidemirror revert"
	}
	return "see journalctl -u docker; to undo: sidemirror revert"
}

// askOne has an engine pull from a registry that does not exist, and whose hosts.toml
// names a listener of ours alone: whoever comes there has read that file. It is
// in the journal like every other, so that it does not outlive a run that is killed.
func (a *applier) askOne(ctx context.Context, q ask) (heard bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	p, err := listenForProbe(ctx)
	if err != nil {
		return false, errNotAsked
	}
	defer p.close()
	url := "http://" + p.listener.Addr().String()
	c := Change{
		Engine: q.engine, Path: path.Join(q.folder, p.registry, "hosts.toml"), kind: hostsFile, url: url,
		After: splice.Hosts{URL: url, Server: url}.File(),
	}
	if err := a.place(c); err != nil {
		return false, fmt.Errorf("%w: %w", errNotAsked, err)
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
		err = a.signaler.Pull(ctx, q, p.registry+"/"+p.repository+":probe")
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
	registry, repository string // names that nobody can guess
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
	if strings.HasPrefix(r.URL.Path, "/v2/"+p.repository+"/") {
		p.once.Do(func() { close(p.heard) })
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"this is sidemirror's probe"}]}`)
}

func (p *probe) close() {
	_ = p.server.Close()
	<-p.served
}
