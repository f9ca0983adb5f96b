package logging

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/internal/logline"
)

// Access writes the lines of the access log through a logger: to its output, at its level and in
// its format. It is safe for concurrent use.
type Access struct {
	log *logrus.Logger
	out *Writer

	// append formats a line; nil: the logger does, in colours.
	append atomic.Pointer[func(b []byte, level logrus.Level, l logline.Line) []byte]
}

// NewAccess returns the access log of a logger whose output is out.
func NewAccess(log *logrus.Logger, out *Writer) *Access { return &Access{log: log, out: out} }

// Configure takes over the format that [Configure] has set for the logger.
func (a *Access) Configure() {
	var format func([]byte, logrus.Level, logline.Line) []byte
	switch f := a.log.Formatter.(type) {
	case journalFormatter:
		format = func(b []byte, level logrus.Level, l logline.Line) []byte {
			b = append(b, '<', byte('0'+priority(level)), '>')
			l.Time = time.Time{} // journald adds it
			return l.AppendText(b)
		}
	case *logrus.JSONFormatter:
		format = func(b []byte, _ logrus.Level, l logline.Line) []byte {
			return l.AppendJSON(b)
		}
	case *logrus.TextFormatter:
		if f.ForceColors {
			a.append.Store(nil)
			return
		}
		format = func(b []byte, _ logrus.Level, l logline.Line) []byte {
			return l.AppendText(b)
		}
	}
	a.append.Store(&format)
}

// buffers hold lines under construction.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Write writes one line, for the time at. The fields are in the order of their names, and the callee does not
// retain them.
func (a *Access) Write(at time.Time, level logrus.Level, message string, fields []logline.Field) {
	if !a.log.IsLevelEnabled(level) {
		return
	}
	format := a.append.Load()
	if format == nil {
		data := make(logrus.Fields, len(fields))
		for _, f := range fields {
			data[f.Name] = f.Value()
		}
		a.log.WithFields(data).WithTime(at).Log(level, message)
		return
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	*buf = (*format)((*buf)[:0], level, logline.Line{Time: at, Level: level.String(), Message: message, Fields: fields})
	a.out.later(*buf)
}
