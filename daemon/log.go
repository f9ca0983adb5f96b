package daemon

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
)

// configureLog sets level and format as c has them; a logger in use may be set again.
func configureLog(l *logrus.Logger, c *config.Config, toJournal bool) {
	level, _ := logrus.ParseLevel(c.Log.Level) // one of logLevels, all of which logrus knows
	l.SetLevel(level)
	switch {
	case c.Log.Format == "json":
		l.SetFormatter(new(logrus.JSONFormatter))
	case c.Log.Format == "auto" && toJournal:
		l.SetFormatter(journalFormatter{&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true}})
	default:
		// https://no-color.org: set to anything at all.
		l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: os.Getenv("NO_COLOR") != ""})
	}
}

// journalFormatter puts the priority before each line as sd-daemon(3) has it.
// journald itself knows the time.
type journalFormatter struct{ next logrus.Formatter }

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

// priority is syslog's (RFC 5424, table 2), from err to debug.
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

// errorLog is for http.Server.ErrorLog. The closer ends a goroutine of logrus's.
func errorLog(l *logrus.Logger) (*log.Logger, io.Closer) {
	w := l.WriterLevel(logrus.WarnLevel)
	return log.New(w, "", 0), w
}
