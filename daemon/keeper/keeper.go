// Package keeper is the process behind "sidemirror watch": it keeps the configuration of the
// host's container engines as sidemirror's own configuration wants it.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/filewatch"
	"github.com/sidemirror/sidemirror/daemon/logging"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// safetyPass is how often the host is examined although no change was reported. The kernel
// does not report a change below a mount that came later, or in a folder that it had no watch
// left for.
const safetyPass = 10 * time.Minute

// Settings are what Run works with.
type Settings struct {
	// Source is where sidemirror's configuration is read from.
	Source config.Source

	// Options are the choices of the command line.
	Options Options

	// Host is the host whose engines are configured. If its Units have the methods ReopenSockets,
	// StartProxy and SocketAddresses of [sdnotify.Units], Run opens the proxy's sockets again, starts a
	// proxy that listens at other addresses too, and points engines only at addresses at which systemd
	// opens sockets.
	Host *hostconfig.Host

	// LoggedIn, if not nil, returns the registries that logins make known. LoginFolder is the folder of
	// the host, as an absolute path, whose change may change them.
	LoggedIn    func() ([]string, error)
	LoginFolder string
}

// Run keeps the engines configured until ctx is done, and then leaves everything as it is. It
// reads the configuration again when it changes and at SIGHUP. While the configuration is
// faulty, the last good one stays in force; if there was none yet, Run waits for one. It
// returns an error only if the kernel does not let it watch any files.
func Run(ctx context.Context, s Settings) error {
	return newKeeper(s, os.Stderr).run(ctx)
}

// retryEvery is how often a configuration that could not be put in force is read again: the kernel
// does not report changes of its file on a network file system.
const retryEvery = 30 * time.Second

// socketManager is the service manager that holds the proxy's sockets.
type socketManager interface {
	// ReopenSockets opens them again if it closed them.
	ReopenSockets(ctx context.Context) (reopened bool, err error)

	// StartProxy starts the proxy if it does not run although they are open.
	StartProxy(ctx context.Context) (started bool, err error)

	// SocketAddresses returns where it opens them, none if the proxy does.
	SocketAddresses(ctx context.Context) ([]netip.AddrPort, error)
}

type keeper struct {
	settings  Settings
	engines   *rounds
	log       *logrus.Logger
	toJournal bool

	handover string          // the folder in which the proxy looks for what was found
	want     *engine.Desired // nil until a configuration was good
	alone    bool            // the proxy has to run although nothing connects
	tasks    sync.WaitGroup
	loggedIn []string           // the registries that logins make known, as they were found last
	files    *filewatch.Watcher // the engines' files
	next     *time.Timer        // of the next pass
	reported map[string]bool    // what was logged and still holds
	refused  string             // why the newest configuration is not in force
	retry    time.Duration
	status   string // the status line that systemd has
}

func newKeeper(s Settings, stderr io.Writer) *keeper {
	k := &keeper{settings: s, engines: newRounds(s.Host), log: logrus.New(), retry: retryEvery}
	if s.Host.Root == "/" { // the proxy of another tree does not run
		k.engines.handOver = func(plan hostconfig.Plan) error { return HandOver(k.handover, plan) }
	}
	k.log.SetOutput(stderr)
	k.toJournal = stderr == os.Stderr && sdnotify.StderrIsJournal()
	logging.Configure(k.log, "info", "auto", k.toJournal)
	return k
}

func (k *keeper) run(ctx context.Context) error {
	var err error
	if k.files, err = filewatch.New(); err != nil {
		return err
	}
	defer k.files.Close()
	own := filewatch.NewContents()
	defer own.Close()
	own.Follow(k.settings.Source.File())
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	k.next = time.NewTimer(safetyPass)
	defer k.next.Stop()

	defer k.tasks.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	k.tasks.Go(func() { own.Run(ctx) })
	k.tasks.Go(func() { k.files.Run(ctx) })

	k.load(ctx, "the start")
	k.pass(ctx)
	k.notify(sdnotify.Ready(k.status))
	k.openSockets(ctx)
	k.startProxy(ctx)
	sockets := time.NewTicker(safetyPass)
	defer sockets.Stop()
	retry := time.NewTicker(k.retry)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
			k.tryAgain(ctx)
		case <-sockets.C:
			k.openSockets(ctx)
		case <-ctx.Done():
			k.notify(sdnotify.Stopping(0))
			k.forgetEngines()
			return nil
		case <-hup:
			k.reload(ctx, "SIGHUP")
		case <-own.Changed():
			k.reload(ctx, "the file changed")
		case <-k.files.Changed():
			k.pass(ctx)
		case <-k.next.C:
			k.pass(ctx)
		}
	}
}

// load reads the configuration, and puts it in force if it is good. It reports whether it is.
func (k *keeper) load(ctx context.Context, why string) bool {
	log := k.log.WithFields(logrus.Fields{"file": k.settings.Source.File(), "reason": why})
	c, want, err := k.read(ctx)
	if err != nil {
		before := k.refused
		switch k.refused = config.Brief(err); {
		case k.refused == before: // it is logged
		case k.want == nil:
			log.WithField("error", k.refused).Error("the configuration cannot be used; waiting for one that can")
		default:
			log.WithField("error", k.refused).Error("the new configuration cannot be used; the last good one stays in force")
		}
		return false
	}
	k.refused = ""
	logging.Configure(k.log, c.Log.Level, c.Log.Format, k.toJournal)
	k.want, k.handover, k.alone = &want, c.Engine.HandoverDir, c.ListensAlone()
	log.Info("the configuration is in force")
	return true
}

// read returns the configuration on disk and what it wants of the engines.
func (k *keeper) read(ctx context.Context) (*config.Config, engine.Desired, error) {
	c, err := k.settings.Source.Load()
	if err != nil {
		return nil, engine.Desired{}, err
	}
	if m, ok := k.settings.Host.Units.(socketManager); ok {
		open, err := m.SocketAddresses(ctx)
		// Where systemd does not run, there is nothing to find out.
		if err != nil && sdnotify.Enabled() {
			return nil, engine.Desired{}, fmt.Errorf("finding out where the proxy's sockets are: %w", err)
		}
		if err := c.UseSockets(open); err != nil {
			return nil, engine.Desired{}, err
		}
	}
	want, err := Desired(c, k.settings.Options)
	return c, want, err
}

// tryAgain reads a configuration again that could not be put in force.
func (k *keeper) tryAgain(ctx context.Context) {
	if k.refused == "" {
		return
	}
	good := k.load(ctx, "another try")
	k.pass(ctx)
	if good {
		k.openSockets(ctx)
		k.startProxy(ctx)
	}
}

func (k *keeper) reload(ctx context.Context, why string) {
	k.notify(sdnotify.Reloading())
	good := k.load(ctx, why)
	k.pass(ctx)
	k.notify(sdnotify.Ready(k.status))
	if good {
		k.openSockets(ctx)
		k.startProxy(ctx)
	}
}

// openSockets opens the proxy's sockets again if systemd has given them up: the reason may be
// gone.
func (k *keeper) openSockets(ctx context.Context) {
	units, ok := k.settings.Host.Units.(socketManager)
	if !ok {
		return
	}
	switch reopened, err := units.ReopenSockets(ctx); {
	case err != nil && ctx.Err() == nil:
		k.log.WithError(err).Debug("cannot find out whether systemd has closed the proxy's sockets")
	case reopened && err == nil:
		k.log.Info("opened the proxy's sockets again, which systemd had closed after failures")
	}
}

// startProxy starts a proxy that listens at addresses that systemd does not open for it: after a boot,
// connections there would be refused until an engine pulls. Only a start and a change of the
// configuration lead here, so that a proxy that an administrator stops stays down. The job waits for
// the network, and the watcher does not wait for the job.
func (k *keeper) startProxy(ctx context.Context) {
	units, ok := k.settings.Host.Units.(socketManager)
	if !ok || !k.alone {
		return
	}
	k.tasks.Go(func() {
		switch started, err := units.StartProxy(ctx); {
		case err != nil && ctx.Err() == nil:
			k.log.WithError(err).Warning("cannot start the proxy, which listens at addresses of its own")
		case started && err == nil:
			k.log.Info("started the proxy, which listens at addresses of its own")
		}
	})
}

// pass makes the engines' configuration as it is wanted. It reports what is wrong, and the
// next pass tries again.
func (k *keeper) pass(ctx context.Context) {
	if k.want == nil {
		k.setStatus("waiting for a configuration that can be used; the engines' files stay as they are: " + k.refused)
		return
	}
	// Folders that the watcher did not know may have changed since they were examined.
	for range 4 {
		if ctx.Err() != nil {
			return
		}
		want, unknown := k.withLogins()
		done, err := k.engines.run(ctx, want)
		err = errors.Join(err, unknown)
		more, unwatched := false, error(nil)
		if ctx.Err() == nil { // otherwise the watcher is closed
			more, unwatched = k.files.Follow(k.settings.Host.Root, k.below(k.withLoginFolder(done.Watch))...)
		}
		k.report(done, errors.Join(err, k.handOverEngines(done.Engines)), unwatched)
		k.next.Reset(safetyPass)
		if done.again > 0 {
			k.next.Reset(min(done.again, safetyPass))
		}
		if !more {
			break
		}
	}
}

// withLogins returns what is wanted, with the registries that logins make known. If these cannot be
// found out, they are those of the last time.
func (k *keeper) withLogins() (engine.Desired, error) {
	want := *k.want
	if k.settings.LoggedIn == nil {
		return want, nil
	}
	names, err := k.settings.LoggedIn()
	if err == nil {
		k.loggedIn = names
	}
	want.Registries = withNames(want.Registries, k.loggedIn)
	return want, err
}

func (k *keeper) withLoginFolder(paths []string) []string {
	if k.settings.LoginFolder == "" {
		return paths
	}
	return append(slices.Clone(paths), k.settings.LoginFolder+"/")
}

// below returns paths of the host as this process reaches them.
func (k *keeper) below(paths []string) []string {
	list := make([]string, len(paths))
	for i, path := range paths {
		list[i] = filepath.Join(k.settings.Host.Root, path)
		if strings.HasSuffix(path, "/") {
			list[i] += "/"
		}
	}
	return list
}

// notify logs that systemd could not be notified, which affects nothing else.
func (k *keeper) notify(err error) {
	if err != nil {
		k.log.WithError(err).Warn("systemd could not be notified")
	}
}
