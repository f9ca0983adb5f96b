package keeper

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// report logs what is new in a pass, and sends systemd its status line.
func (k *keeper) report(done hostconfig.Kept, err, unwatched error) {
	for _, list := range []struct {
		names []string
		text  string
	}{{done.Written, "wrote sidemirror's entry"}, {done.Given, "restored a file"}, {done.Told, "notified an engine"}} {
		for _, name := range list.names {
			k.log.WithField("what", name).Info(list.text)
		}
	}
	holds := make(map[string]bool)
	once := func(level logrus.Level, text string) {
		if holds[text] = true; !k.reported[text] {
			k.log.Log(level, text)
		}
	}
	for _, name := range done.Lost {
		once(logrus.ErrorLevel, "another program keeps changing "+name+" back; sidemirror leaves it alone until its own configuration changes or this service is restarted")
	}
	for _, fault := range slices.Concat(done.Refused, []error{err, unwatched}) {
		if fault != nil {
			once(logrus.WarnLevel, withHint(fault))
		}
	}
	for _, state := range done.Engines {
		for _, note := range state.Notes {
			once(logrus.InfoLevel, state.Engine+": "+note)
		}
	}
	k.reported = holds
	k.setStatus(k.summary(done, err))
}

func withHint(err error) string {
	if hint := problem.Hint(err); hint != "" {
		return err.Error() + "; hint: " + hint
	}
	return err.Error()
}

// maxStatus limits the status line, in bytes.
const maxStatus = 1024

// setStatus sends systemd the status line if it has changed.
func (k *keeper) setStatus(text string) {
	text = strings.ToValidUTF8(text[:min(len(text), maxStatus)], "") // systemd refuses half letters
	if text != k.status {
		k.status = text
		k.notify(sdnotify.Status(text))
	}
}

// summary returns the status line: what is kept and, after semicolons, the problems.
func (k *keeper) summary(done hostconfig.Kept, err error) string {
	var engines []string
	files := 0
	for _, state := range done.Engines {
		if state.Present {
			engines = append(engines, state.Engine)
			files += len(state.Files)
		}
	}
	parts := []string{"no engine found yet"}
	if len(engines) > 0 {
		parts[0] = fmt.Sprintf("maintaining %d files of %s", files, strings.Join(slices.Compact(engines), " and "))
	}
	if k.refused != "" {
		parts = append(parts, "the new configuration cannot be used: "+k.refused)
	}
	if len(done.Lost) > 0 {
		parts = append(parts, "given up, because another program keeps changing them back: "+strings.Join(done.Lost, ", "))
	}
	for _, fault := range slices.Concat(done.Refused, []error{err}) {
		if fault != nil {
			parts = append(parts, fault.Error())
		}
	}
	return strings.Join(parts, "; ")
}
