// Package daemon is the process: its configuration, its listeners, and the reload,
// shutdown and readiness of what serves on them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/filewatch"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/logging"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// Run serves as c says until ctx is done, then lets what is under way finish for
// c.ShutdownTimeout, serving what comes in meanwhile, and cuts the rest. SIGHUP and a change of the file make it read
// the configuration again. It dials nobody before it listens, so that no upstream
// keeps it from starting. It returns nil after an orderly end; an error means that
// it could not listen, or not read a file that c names.
func Run(ctx context.Context, source config.Source, version string) error {
	d := &daemon{
		source: source,
		stderr: os.Stderr,
	}
	d.build = func(c *config.Config, at []netip.AddrPort, log *logrus.Logger) (service, error) {
		return d.caches.newService(c, at, version, log)
	}
	return d.run(ctx)
}

type daemon struct {
	source config.Source
	config *config.Config
	stderr io.Writer
	build  func(*config.Config, []netip.AddrPort, *logrus.Logger) (service, error)

	caches    caches
	log       *logrus.Logger
	toJournal bool
	uids      atomic.Pointer[[]uint32]
	limiter   *listener.Limiter
	handler   railSwitch
	server    *http.Server
	handed    bool // systemd opened the sockets, listen does not count
	listeners map[netip.AddrPort]*net.TCPListener
	work      context.Context // of requests and probes; done when they are to be cut
	tasks     sync.WaitGroup
	accepting sync.WaitGroup         // what serves the listeners
	failed    chan error             // a listener that ended by itself
	retiring  sync.WaitGroup         // generations that were replaced
	ownURL    atomic.Pointer[string] // what alive asks for
	line      statusLine
	names     resolver
}

func (d *daemon) run(ctx context.Context) error {
	files := filewatch.NewContents()
	defer files.Close()
	files.Follow(d.source.File())
	var err error
	if d.config, err = d.source.Load(); err != nil {
		return err
	}
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d.work = work
	d.log = logrus.New()
	d.log.SetOutput(d.stderr)
	d.toJournal = d.stderr == os.Stderr && sdnotify.StderrIsJournal()
	logging.Configure(d.log, d.config.Log.Level, d.config.Log.Format, d.toJournal)
	if err := d.listen(ctx); err != nil {
		return err
	}
	first, err := d.build(d.config, d.addresses(d.config), d.log)
	if err != nil {
		closeAll(d.listeners)
		return err
	}
	faults, faultsEnd := logging.ForServer(d.log)
	defer faultsEnd.Close()
	d.server = d.newServer()
	d.server.ErrorLog = faults

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	d.publish()
	d.handler.swap(newGeneration(work, first))
	d.failed = make(chan error, 1)
	for _, l := range d.listeners {
		d.serve(l)
	}
	d.log.WithFields(logrus.Fields{"addresses": texts(d.addresses(d.config)), "file": d.config.File}).Info("serving")
	d.line.trouble(d.trouble())
	d.notify(sdnotify.Ready(d.line.text()))
	d.handler.current.probe()

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	d.tasks.Go(func() { files.Run(watching) })
	d.tasks.Go(func() { sdnotify.Watchdog(watching, d.alive, d.notify) })
	d.tasks.Go(func() { d.keepStatus(watching, lookEvery) })
	err = d.wait(ctx, hup, files.Changed())
	stopWatching()
	d.stop(ctx, cut)
	return err
}

func (d *daemon) wait(ctx context.Context, hup <-chan os.Signal, changed <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.failed:
			return err
		case <-hup:
			d.reload("SIGHUP")
		case <-changed:
			d.reload("the file changed")
		}
	}
}

func (d *daemon) newServer() *http.Server {
	d.limiter = listener.NewLimiter(d.trusts)
	server := listener.NewServer(&d.handler)
	server.BaseContext = func(net.Listener) context.Context { return d.work }
	server.ConnContext = peer.ConnContext
	return server
}

// trusts reports whether a trusted user, or the user that sidemirror runs as, opened c. The
// watchdog's own connections must not be shut out by those of other users.
func (d *daemon) trusts(c net.Conn) bool {
	caller, err := peer.Lookup(c)
	return err == nil && (caller.UID == uint32(os.Getuid()) || slices.Contains(*d.uids.Load(), caller.UID))
}

// serve accepts on l until it is closed.
func (d *daemon) serve(l *net.TCPListener) {
	d.accepting.Go(func() {
		err := d.server.Serve(listener.Limit(l, d.limiter))
		if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case d.failed <- fmt.Errorf("accepting connections on %v: %w", l.Addr(), err):
		default: // one is enough to end for
		}
	})
}

// alive asks for something of ours over our own listener. Any answer will do.
func (d *daemon) alive(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *d.ownURL.Load(), nil)
	if err != nil {
		return fmt.Errorf("asking ourselves: %w", err)
	}
	req.Header.Set("User-Agent", proxy.WatchdogAgent)
	// A connection of its own each time: accepting is a part of what has to work.
	own := &http.Transport{DisableKeepAlives: true}
	resp, err := own.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking ourselves, for systemd's watchdog: %w", err)
	}
	return resp.Body.Close()
}

// notify logs that systemd could not be notified, which does not affect pulls.
func (d *daemon) notify(err error) {
	if err != nil {
		d.log.WithError(err).Warn("systemd could not be notified")
	}
}

// publish hands out what others read of the configuration while it is exchanged.
func (d *daemon) publish() {
	d.uids.Store(&d.config.Trust.UIDs)
	own := "http://" + reachable(d.addresses(d.config)[0]).String() + "/v2/"
	if r := d.config.Registry(oci.DockerHub); r.Relay() {
		// There /v2/ asks the upstream, whose silence is not our death.
		own = strings.TrimSuffix(own, "v2/")
	}
	d.ownURL.Store(&own)
	d.line.serving(fmt.Sprintf("serving %d registries on %s", len(d.config.Registries), strings.Join(texts(d.addresses(d.config)), ", ")))
}
