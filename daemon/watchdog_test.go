package daemon

import (
	"io"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestTheWatchdogAsksThroughTheListener(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.expect("WATCHDOG=1")
	r.expect("WATCHDOG=1")
	d := &daemon{log: logrus.New()}
	d.log.SetOutput(io.Discard)
	nobody := "http://" + freeAddr(t) + "/v2/"
	d.ownURL.Store(&nobody)
	if err := d.alive(t.Context()); err == nil {
		t.Error("it is alive though nobody listens")
	}
}
