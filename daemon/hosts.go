package daemon

import (
	"context"
	"errors"
	"fmt"
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
	problems "github.com/sidemirror/sidemirror/internal/problem" // the package has a type problem
)

// safetyPass is for what the kernel does not tell of: a file below a mount that came
// later, a folder for which no watch was left.
const safetyPass = 10 * time.Minute

// Watch keeps the engines on h configured as load says until ctx is done, and then
// leaves everything as it is. It calls load again at SIGHUP and when the
// configuration at file changes; while that fails, what it said last stays. It
// returns an error only where it cannot begin.
func Watch(ctx context.Context, h *hostconfig.Host, file string, load func() (*config.Config, hostconfig.Desired, error)) error {
	return newHosts(h, file, load).run(ctx)
}

func newHosts(h *hostconfig.Host, file string, load func() (*config.Config, hostconfig.Desired, error)) *hosts {
	k := &hosts{keeper: hostconfig.Keeper{Host: h}, file: file, load: load, log: logrus.New()}
	if units, ok := h.Units.(sdnotify.Units); ok {
		k.reopen = units.ReopenSockets
	}
	return k
}

type hosts struct {
	keeper hostconfig.Keeper
	file   string
	load   func() (*config.Config, hostconfig.Desired, error)
	log    *logrus.Logger
	reopen func(context.Context) (bool, error) // the proxy's sockets; nil where nobody can

	want    hostconfig.Desired
	files   *filewatch.Watcher
	again   *time.Timer
	said    map[string]bool // what was logged, and still holds
	refused string          // why the newest configuration is not used
	status  string          // as systemd knows it
}

func (k *hosts) run(ctx context.Context) error {
	file := filewatch.NewContents()
	file.Follow(k.file)
	c, want, err := k.load()
	if err != nil {
		return err
	}
	logging.Configure(k.log, c.Log.Level, c.Log.Format, sdnotify.StderrIsJournal())
	k.want = want
	if k.files, err = filewatch.New(); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	k.again = time.NewTimer(safetyPass)
	defer k.again.Stop()

	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks.Go(func() { file.Run(ctx) })
	tasks.Go(func() { k.files.Run(ctx) })

	k.round(ctx)
	k.tell(sdnotify.Ready(k.status))
	k.openSockets(ctx)
	sockets := time.NewTicker(safetyPass)
	defer sockets.Stop()
	for {
		select {
		case <-sockets.C:
			k.openSockets(ctx)
		case <-ctx.Done():
			k.tell(sdnotify.Stopping(0))
			return nil
		case <-hup:
			k.reload(ctx, "SIGHUP")
		case <-file.Changed():
			k.reload(ctx, "the file changed")
		case <-k.files.Changed():
			k.round(ctx)
		case <-k.again.C:
			k.round(ctx)
		}
	}
}

// reload asks what is wanted now.
func (k *hosts) reload(ctx context.Context, why string) {
	k.tell(sdnotify.Reloading())
	log := k.log.WithFields(logrus.Fields{"file": k.file, "reason": why})
	c, want, err := k.load()
	k.refused = ""
	if err != nil {
		k.refused = err.Error()
		var faults *config.Error
		if errors.As(err, &faults) {
			k.refused = faults.Brief()
		}
		log.WithField("error", k.refused).Error("the new configuration is not used, the old one stays")
	} else {
		logging.Configure(k.log, c.Log.Level, c.Log.Format, sdnotify.StderrIsJournal())
		k.want = want
		log.Info("configuration reloaded")
	}
	k.round(ctx)
	k.tell(sdnotify.Ready(k.status))
	if err == nil {
		k.openSockets(ctx)
	}
}

// openSockets opens the proxy's sockets again where systemd has given them up: what kept the
// proxy from starting may be mended, a faulty configuration above all.
func (k *hosts) openSockets(ctx context.Context) {
	if k.reopen == nil {
		return
	}
	switch reopened, err := k.reopen(ctx); {
	case err != nil && ctx.Err() == nil:
		k.log.WithError(err).Debug("the proxy's sockets could not be seen to")
	case reopened && err == nil:
		k.log.Info("opened the proxy's sockets again, which systemd had closed because it failed")
	}
}

// round makes the host as it is wanted. Whatever is wrong is told, and tried again.
func (k *hosts) round(ctx context.Context) {
	// Folders that are new to the watcher may have changed since they were looked at.
	for range 4 {
		if ctx.Err() != nil {
			return
		}
		kept, err := k.keeper.Round(ctx, k.want)
		more, unwatched := false, error(nil)
		if ctx.Err() == nil { // else nothing is watched any more
			more, unwatched = k.files.Follow(k.keeper.Host.Root, k.below(kept.Watch)...)
		}
		k.say(kept, err, unwatched)
		k.again.Reset(safetyPass)
		if kept.Again > 0 {
			k.again.Reset(min(kept.Again, safetyPass))
		}
		if !more {
			break
		}
	}
}

// below are paths of the host's as we reach them.
func (k *hosts) below(paths []string) []string {
	root := k.keeper.Host.Root
	list := make([]string, len(paths))
	for i, path := range paths {
		list[i] = filepath.Join(root, path)
		if strings.HasSuffix(path, "/") {
			list[i] += "/"
		}
	}
	return list
}

// say logs what is new of a round, and gives systemd its line.
func (k *hosts) say(kept hostconfig.Kept, err, unwatched error) {
	for _, list := range []struct {
		files []string
		text  string
	}{{kept.Written, "wrote our part"}, {kept.Given, "gave a file back"}, {kept.Told, "told an engine"}} {
		for _, name := range list.files {
			k.log.WithField("what", name).Info(list.text)
		}
	}
	holds := make(map[string]bool)
	say := func(level logrus.Level, text string) {
		if holds[text] = true; !k.said[text] {
			k.log.Log(level, text)
		}
	}
	for _, name := range kept.Lost {
		say(logrus.ErrorLevel, name+" is changed back by another program again and again; it is left to that program until sidemirror's configuration changes or this service is restarted")
	}
	for _, fault := range slices.Concat(kept.Refused, []error{err, unwatched}) {
		if fault != nil {
			text := fault.Error()
			if hint := problems.Hint(fault); hint != "" {
				text += "; hint: " + hint
			}
			say(logrus.WarnLevel, text)
		}
	}
	for _, state := range kept.Engines {
		for _, note := range state.Notes {
			say(logrus.InfoLevel, state.Engine+": "+note)
		}
	}
	k.said = holds
	if now := k.summary(kept, err); now != k.status {
		k.status = now
		k.tell(sdnotify.Status(now))
	}
}

// summary is the one line that systemctl status shows.
func (k *hosts) summary(kept hostconfig.Kept, err error) string {
	var engines, wrong []string
	files := 0
	for _, state := range kept.Engines {
		if state.Present {
			engines = append(engines, state.Engine)
			files += len(state.Files)
		}
	}
	text := "no engine found yet"
	if len(engines) > 0 {
		text = fmt.Sprintf("keeping %d files of %s", files, strings.Join(slices.Compact(engines), " and "))
	}
	if k.refused != "" {
		wrong = append(wrong, "the new configuration is not used: "+k.refused)
	}
	if len(kept.Lost) > 0 {
		wrong = append(wrong, "given up, because another program changes them back: "+strings.Join(kept.Lost, ", "))
	}
	for _, fault := range slices.Concat(kept.Refused, []error{err}) {
		if fault != nil {
			wrong = append(wrong, fault.Error())
		}
	}
	if len(wrong) > 0 {
		text += "; " + strings.Join(wrong, "; ")
	}
	return strings.ToValidUTF8(text[:min(len(text), 1024)], "") // systemd takes no half letters
}

func (k *hosts) tell(err error) {
	if err != nil {
		k.log.WithError(err).Warn("systemd was not told")
	}
}
