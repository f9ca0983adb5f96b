package keeper

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// report logs what is new in a pass, and sends systemd its status line.
func (k *keeper) report(done round, err, unwatched error) {
	for _, name := range done.Written {
		k.log.WithField("file", name).Info("wrote sidemirror's entry")
	}
	for _, name := range done.Restored {
		k.log.WithField("file", name).Info("restored a file")
	}
	for _, s := range done.Result.Signals {
		k.log.WithFields(logrus.Fields{"engine": s.Engine, "signal": s.Verb}).Info("notified an engine")
	}
	holds := make(map[string]bool)
	once := func(level logrus.Level, text string) {
		if holds[text] = true; !k.reported[text] {
			k.log.Log(level, text)
		}
	}
	for _, name := range done.lost {
		once(logrus.ErrorLevel, "another program keeps changing "+name+" back; sidemirror leaves it alone until its own configuration changes or this service is restarted")
	}
	for _, fault := range []error{err, unwatched} {
		if fault != nil {
			once(logrus.WarnLevel, withHint(fault))
		}
	}
	for _, p := range done.Refused {
		once(logrus.WarnLevel, withHint(p))
	}
	for _, state := range done.Engines {
		for _, p := range state.Problems {
			if !slices.Contains(done.Refused, p) {
				once(logrus.WarnLevel, state.Title()+": "+withHint(p))
			}
		}
		for _, p := range state.Notes {
			once(logrus.InfoLevel, state.Title()+": "+withHint(p))
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
func (k *keeper) summary(done round, err error) string {
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
	if len(done.lost) > 0 {
		parts = append(parts, "given up, because another program keeps changing them back: "+strings.Join(done.lost, ", "))
	}
	for _, p := range done.Refused {
		parts = append(parts, p.Error())
	}
	if err != nil {
		parts = append(parts, err.Error())
	}
	return strings.Join(parts, "; ")
}
