// Package logging sets up the log of sidemirror's services.
package logging

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/sirupsen/logrus"
)

// Configure sets the level and the format of l, as the keys log.level and log.format have them. toJournal
// says that l writes to the journal. A logger in use may be configured again.
func Configure(l *logrus.Logger, level, format string, toJournal bool) {
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		parsed = logrus.InfoLevel
	}
	l.SetLevel(parsed)
	switch {
	case format == "json":
		l.SetFormatter(new(logrus.JSONFormatter))
	case format == "auto" && toJournal:
		l.SetFormatter(journalFormatter{&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true}})
	default:
		// https://no-color.org: set to anything at all.
		plain := os.Getenv("NO_COLOR") != ""
		w, _ := l.Out.(*Writer) // logrus recognises no terminal behind it
		l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: plain, ForceColors: w != nil && w.terminal && !plain})
	}
}

// journalFormatter puts the priority before each line, as sd-daemon(3) specifies. journald
// adds the time.
type journalFormatter struct{ next logrus.Formatter }

// Format implements [logrus.Formatter].
func (f journalFormatter) Format(e *logrus.Entry) ([]byte, error) {
	text, err := f.next.Format(e)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		fmt.Fprintf(&b, "<%d>%s", priority(e.Level), line)
	}
	return b.Bytes(), nil
}

// priority returns syslog's number for level (RFC 5424, table 2), from err to debug.
func priority(level logrus.Level) int {
	switch level {
	case logrus.WarnLevel:
		return 4
	case logrus.InfoLevel:
		return 6
	case logrus.DebugLevel, logrus.TraceLevel:
		return 7
	}
	return 3
}

// ForServer returns a logger for http.Server.ErrorLog that writes to l at a level. Closing the closer
// ends a goroutine of logrus.
func ForServer(l *logrus.Logger, level logrus.Level) (*log.Logger, io.Closer) {
	w := l.WriterLevel(level)
	return log.New(w, "", 0), w
}
