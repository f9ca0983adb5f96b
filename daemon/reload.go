package daemon

import (
	"net"
	"net/netip"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/logging"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// reload reads the configuration again, and puts it in force whole or not at all.
func (d *daemon) reload(why string) {
	d.notify(sdnotify.Reloading())
	log := d.log.WithFields(logrus.Fields{"file": d.config.File, "reason": why})
	next, err := d.source.Load()
	if err == nil {
		err = d.replace(next)
	}
	if err != nil {
		text := config.Brief(err)
		log.WithField("error", text).Error("the new configuration is not used, the old one stays")
		d.line.refused("the new configuration is not used: " + text)
		d.notify(sdnotify.Ready(d.line.text()))
		return
	}
	log.WithField("addresses", texts(d.addresses(d.config))).Info("configuration reloaded")
	d.line.trouble(d.trouble())
	d.notify(sdnotify.Ready(d.line.text()))
	d.handler.current.probe()
}

// replace puts next in force. Whatever can fail comes before the first thing that
// is seen from outside.
func (d *daemon) replace(next *config.Config) error {
	var opened map[netip.AddrPort]*net.TCPListener
	if !d.handed {
		var err error
		if opened, err = d.open(d.work, next.Listen); err != nil {
			return err
		}
	}
	svc, err := d.build(next, d.addresses(next), d.log)
	if err != nil {
		closeAll(opened)
		return err
	}
	logging.Configure(d.log, next.Log.Level, next.Log.Format, d.toJournal)
	if d.handed {
		d.warnOfHanded(next)
	}
	d.config = next
	d.publish()
	old := d.handler.swap(newGeneration(d.work, svc))
	d.retiring.Go(old.retire)
	for addr, l := range opened {
		d.listeners[addr] = l
		d.serve(l)
	}
	for addr, l := range d.listeners {
		if !d.handed && !slices.Contains(next.Listen, addr) {
			delete(d.listeners, addr)
			_ = l.Close() // its connections live on until they are idle
		}
	}
	return nil
}
