package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// listenError reports that an address cannot be served. It ends a start; a reload keeps the
// configuration that is in force.
type listenError struct{ error }

// Unwrap returns the cause.
func (e listenError) Unwrap() error { return e.error }

// start puts the first configuration in force: that of the file or, if it is faulty, the last
// good one. If there is none either, every request is refused, unless a person started the
// daemon: then it fails, and the port stays closed.
func (d *daemon) start() error {
	err := d.try(d.load)
	if err == nil || isListenError(err) {
		return err
	}
	d.line.refused(config.Brief(err))
	log := d.log.WithFields(logrus.Fields{"file": d.source.File(), "error": config.Brief(err)})
	lastErr := d.try(func() (*config.Config, error) { return d.usable(d.lastGood.Load(d.source)) })
	switch {
	case lastErr == nil:
		log.Error("the configuration on disk cannot be used; the last good one is in force")
		return nil
	case isListenError(lastErr):
		return lastErr
	case !errors.Is(lastErr, fs.ErrNotExist):
		log = log.WithField("last_good", config.Brief(lastErr))
	}
	if !d.sockets.handedOver && !sdnotify.Enabled() {
		return err
	}
	if listenErr := d.refuse(d.source.Listen(err)); listenErr != nil {
		return errors.Join(err, listenErr)
	}
	log.Error("the configuration on disk cannot be used, and there is no last good one; every request is refused until it is repaired")
	return nil
}

func isListenError(err error) bool {
	_, is := errors.AsType[listenError](err)
	return is
}

// try puts the configuration that load returns in force.
func (d *daemon) try(load func() (*config.Config, error)) error {
	c, err := load()
	if err != nil {
		return err
	}
	return d.replace(c)
}

// load reads the configuration. From before it is read on, a change of it or of a file that it
// names leads to a reload.
func (d *daemon) load() (*config.Config, error) {
	d.follow()
	return d.usable(d.source.Load())
}

// usable returns c if its addresses are those that systemd handed over, if any, and makes its files
// lead to a reload.
func (d *daemon) usable(c *config.Config, err error) (*config.Config, error) {
	if err != nil {
		return nil, err
	}
	d.follow(c)
	if d.sockets.handedOver {
		err = c.UseSockets(d.sockets.addresses())
	}
	return c, err
}

// follow makes the configuration file, the files that the configuration in force names, and
// those that more configurations name lead to a reload when they change.
func (d *daemon) follow(more ...*config.Config) {
	paths := []string{d.source.File()}
	if d.config != nil {
		more = append(more, d.config)
	}
	for _, c := range more {
		paths = append(paths, c.Files()...)
		if dir := c.Engine.HandoverDir; dir != "" {
			paths = append(paths, handover.Path(dir))
		}
	}
	d.files.Follow(paths...)
}

// reload reads the configuration again, and puts it in force whole or not at all.
func (d *daemon) reload(why string) {
	d.notify(sdnotify.Reloading())
	log := d.log.WithFields(logrus.Fields{"file": d.source.File(), "reason": why})
	if err := d.try(d.load); err != nil {
		text := "the last good one stays in force"
		if d.refusing {
			text = "every request is refused until it is repaired"
		}
		log.WithField("error", config.Brief(err)).Error("the configuration on disk cannot be used; " + text)
		d.line.refused(config.Brief(err))
		d.notify(sdnotify.Ready(d.line.text()))
		return
	}
	d.line.refused("")
	d.inForce(why)
}

// retry reads the configuration again if the one on disk is not in force.
func (d *daemon) retry() {
	if !d.line.isRefused() {
		return
	}
	err := d.try(d.load)
	switch {
	case err == nil:
		d.line.refused("")
		d.inForce("another try")
	case d.line.refused(config.Brief(err)):
		d.notify(sdnotify.Status(d.line.text()))
	}
}

// replace puts next in force. Everything that can fail comes before the first change that is
// seen from outside.
func (d *daemon) replace(next *config.Config) error {
	sockets, err := d.sockets.prepare(d.work, next.Listen)
	if err != nil {
		return listenError{err}
	}
	found := d.readHandover(next)
	s, err := d.build(next, found, sockets.addrs, d.log)
	if err != nil {
		sockets.cancel()
		return err
	}
	d.refusing = false
	d.commit(next, found, s, sockets)
	return nil
}

// refuse serves addrs without a configuration.
func (d *daemon) refuse(addrs []netip.AddrPort) error {
	sockets, err := d.sockets.prepare(d.work, addrs)
	if err != nil {
		return listenError{err}
	}
	d.refusing = true
	d.commit(config.Default(), handover.Handover{}, refusal{}, sockets)
	return nil
}

func (d *daemon) commit(c *config.Config, found handover.Handover, s service, sockets *socketChange) {
	d.configureLog(c)
	d.config = c
	upstreams := upstreamsOf(c)
	d.activity.Configured(upstreams)
	d.metrics.Configured(registriesOf(c), upstreams)
	d.scraped.follow(d.work, c.Metrics.Listen)
	d.shown.Store(c)
	d.trust.Store(peer.NewTrust(c.Trust.UIDs, c.Trust.Units, nil))
	d.visitors.Configure(visitorsOf(c.Site))
	if old := d.handler.swap(newGeneration(d.work, s)); old != nil {
		d.retiring.Go(old.retire)
	}
	sockets.commit(d.serve)
	d.line.puts(served{file: c.File, addresses: texts(d.sockets.addresses()), registries: registriesOf(c)})
	d.guests.set(c.Guests)
	d.site.set(c, found)
	d.watchdog.url.Store(new(d.ownURL()))
}

// registriesOf returns the names of the registries of c.
func registriesOf(c *config.Config) []string {
	names := make([]string, len(c.Registries))
	for i, r := range c.Registries {
		names[i] = r.Name
	}
	return names
}

// upstreamsOf returns the upstreams that c names, as the proxy's reports name them.
func upstreamsOf(c *config.Config) (labels []string) {
	for _, r := range c.Registries {
		for _, u := range r.Upstreams {
			labels = append(labels, u.Label())
		}
	}
	return labels
}

// ownURL returns what the watchdog asks for: the page, which asks no upstream.
func (d *daemon) ownURL() string {
	return "http://" + listener.Reachable(d.sockets.addresses()[0]).String() + "/"
}

// inForce reports the configuration that came into force, and stores it for the next start.
func (d *daemon) inForce(why string) {
	addrs := texts(d.sockets.addresses())
	what := fmt.Sprintf("serving %d registries on %s", len(d.config.Registries), strings.Join(addrs, ", "))
	if d.config.Registry(config.Wildcard) != nil {
		what = "serving every registry on " + strings.Join(addrs, ", ")
	}
	if d.refusing {
		what = "refusing every request on " + strings.Join(addrs, ", ")
	} else {
		d.log.WithFields(logrus.Fields{"addresses": addrs, "file": d.config.File, "reason": why}).Info("serving")
	}
	wrong := d.addressProblems()
	for _, p := range wrong {
		d.log.WithField("hint", p.Hint).Warn(p.Error())
	}
	d.line.serving(what, wrong)
	d.examine(time.Now())
	d.line.trouble(d.trouble())
	d.notify(sdnotify.Ready(d.line.text()))
	d.handler.get().probe()
	if d.refusing || d.lastGood == "" {
		return
	}
	d.saveLastGood()
}

// saveLastGood stores the configuration in force. That it cannot be stored is no problem of a proxy
// that is run by hand, perhaps by a user without a state folder.
func (d *daemon) saveLastGood() {
	err := d.lastGood.Save(d.config)
	if err == nil {
		d.unsaved.Store(nil)
		return
	}
	level := logrus.DebugLevel
	const effect = "if the configuration is faulty at the next start, no earlier one will be in force"
	if os.Getenv("STATE_DIRECTORY") != "" {
		level = logrus.WarnLevel
		d.unsaved.Store(&problem.Problem{
			Code: "state-unwritable", Text: effect, Err: err,
			Hint: "let the user that sidemirror runs as write there; then systemctl reload sidemirror",
		})
	}
	d.log.WithError(err).Log(level, effect)
}

// addressProblems returns what is wrong with the addresses served.
func (d *daemon) addressProblems() []*problem.Problem {
	var list []*problem.Problem
	for _, addr := range d.sockets.addresses() {
		if p := d.checkPort(addr); p != nil {
			list = append(list, p)
		}
	}
	return list
}
