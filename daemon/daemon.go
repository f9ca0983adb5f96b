// Package daemon is the process behind "sidemirror serve": it starts and stops the proxy,
// reloads its configuration, and keeps systemd informed.
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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/filewatch"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/logging"
	"github.com/sidemirror/sidemirror/daemon/metrics"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// Run serves as the configuration at source says until ctx is done. Then it lets the requests
// under way finish for the configured time, serves new ones meanwhile, and cuts the rest. It
// reads the configuration again at SIGHUP and when a file that belongs to it changes. It dials
// no upstream before it listens, so that no upstream can delay its start.
//
// A faulty configuration does not end it. It serves on with the last good one, which it also
// stores for the next start. Without one it refuses every request at once until the file is
// repaired. Run returns nil after an orderly end, and an error if it could not listen.
func Run(ctx context.Context, source config.Source, version string) error {
	d := newDaemon(source, os.Stderr)
	d.observe(version)
	defer d.trace(version)()
	d.toJournal = sdnotify.StderrIsJournal()
	d.lastGood = config.DefaultLastGood(source.Environ)
	d.build = func(c *config.Config, found handover.Handover, at []netip.AddrPort, log *logrus.Logger) (service, error) {
		return d.caches.newService(c, found, at, version, log)
	}
	limitMemory()
	return d.run(ctx)
}

type daemon struct {
	source     config.Source
	lastGood   config.LastGood
	build      func(*config.Config, handover.Handover, []netip.AddrPort, *logrus.Logger) (service, error)
	checkPort  func(netip.AddrPort) *problem.Problem
	log        *logrus.Logger
	access     *logging.Access // set by run
	toJournal  bool
	retryEvery time.Duration

	config    *config.Config // in force; the default one if there is none
	refusing  bool           // there is none
	files     *filewatch.Contents
	sockets   *sockets
	guests    *guests
	site      *site
	visitors  *visitor.Site
	limiter   *listener.Limiter
	server    *http.Server
	handler   currentGeneration
	caches    caches
	activity  *activity.Recorder
	shown     atomic.Pointer[config.Config]     // config, for the page
	engines   atomic.Pointer[[]handover.Engine] // as the watching service has found them; nil: unknown
	health    *health.Registry
	metrics   *metrics.Metrics
	scraped   metricsListener
	traces    traces
	notices   atomic.Pointer[map[string][]string] // for people who pull, by registry; nil: none
	version   string
	started   time.Time
	rechecked time.Time // upstreams that are out of reach
	line      statusLine
	names     nameServers
	unsaved   atomic.Pointer[problem.Problem] // why the configuration in force is not stored; nil: it is
	watchdog  watchdog
	published published
	weakness  sync.Once // was logged
	trust     atomic.Pointer[peer.Trust]
	work      context.Context // of requests and probes; done when they must end
	tasks     sync.WaitGroup
	accepting sync.WaitGroup // of the listeners
	retiring  sync.WaitGroup // of generations that were replaced
	failed    chan error     // a listener that ended unexpectedly
}

func newDaemon(source config.Source, stderr io.Writer) *daemon {
	d := &daemon{started: time.Now(), source: source, checkPort: listener.CheckPort, log: logrus.New(), guests: newGuests(), retryEvery: retryEvery, failed: make(chan error, 1)}
	d.log.SetOutput(stderr)
	d.site, d.visitors = d.newSite(), visitor.New()
	d.caches.visitors = d.visitors
	d.activity = activity.New()
	d.health = health.New(d.logProblem)
	d.observe("")
	d.caches.live = d.live
	d.caches.notices = d.noticesFor
	return d
}

func (d *daemon) run(ctx context.Context) error {
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d.work = work
	out := logging.NewWriter(d.log.Out)
	defer out.Close()
	d.log.SetOutput(out)
	d.access = logging.NewAccess(d.log, out)
	d.caches.access = d.access
	d.configureLog(config.Default())
	handedOver, err := sdnotify.Sockets()
	if err != nil {
		return err
	}
	own, ofSite := splitSockets(handedOver)
	d.sockets = newSockets(own)
	d.site.handedOver = ofSite
	faults, faultsEnd := logging.ForServer(d.log, logrus.WarnLevel)
	defer faultsEnd.Close()
	d.server = d.newServer()
	d.server.ErrorLog = faults
	d.files = filewatch.NewContents()
	defer d.files.Close()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	if err := d.start(); err != nil {
		d.sockets.close()
		d.site.close()
		return err
	}
	for _, l := range own {
		d.serve(l)
	}
	d.inForce("the start")
	defer d.serveAdmin()()
	defer d.scraped.close()

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	d.tasks.Go(func() { d.files.Run(watching) })
	d.tasks.Go(func() { sdnotify.Watchdog(watching, d.watchdog.ask, d.notify) })
	d.tasks.Go(func() { d.keepStatus(watching, lookEvery) })
	d.tasks.Go(func() { d.followGuests(watching) })
	err = d.wait(ctx, hup)
	stopWatching()
	d.stop(ctx, cut)
	return err
}

// retryEvery is how often a configuration that could not be put in force is tried again: its address
// may be free now, or the kernel may not report changes of its file, as on a network file system.
const retryEvery = 30 * time.Second

func (d *daemon) wait(ctx context.Context, hup <-chan os.Signal) error {
	retry := time.NewTicker(d.retryEvery)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
			d.retry()
		case <-ctx.Done():
			return nil
		case err := <-d.failed:
			return err
		case <-hup:
			d.reload("SIGHUP")
		case <-d.files.Changed():
			d.reload("a file changed")
		}
	}
}

func (d *daemon) newServer() *http.Server {
	d.limiter = listener.NewLimiter(d.trusts)
	server := listener.NewServer(d.watchdog.mark(&d.handler))
	server.BaseContext = d.contextOf
	server.ConnContext = peer.ConnContext
	return server
}

// trusts reports whether a trusted caller, or the user that sidemirror runs as, opened c. The
// watchdog's own connections must not be shut out by those of other users.
func (d *daemon) trusts(c net.Conn) bool {
	caller, err := peer.Lookup(c)
	return err == nil && (caller.UID == uint32(os.Getuid()) || d.trust.Load().Trusts(caller))
}

// serve accepts on l until it is closed.
func (d *daemon) serve(l *net.TCPListener) { d.accept(l.Addr(), listener.Limit(l, d.limiter)) }

// accept serves the connections of l, which listens at an address, until it is closed.
func (d *daemon) accept(at net.Addr, l net.Listener) {
	d.accepting.Go(func() {
		err := d.server.Serve(l)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case d.failed <- fmt.Errorf("accepting connections on %v: %w", at, err):
		default: // one is enough to end for
		}
	})
}

// notify logs that systemd could not be notified, which does not affect pulls.
func (d *daemon) notify(err error) {
	if err != nil {
		d.log.WithError(err).Warn("systemd could not be notified")
	}
}

func (d *daemon) configureLog(c *config.Config) {
	logging.Configure(d.log, c.Log.Level, c.Log.Format, d.toJournal)
	if d.access != nil { // run has begun
		d.access.Configure()
	}
}
