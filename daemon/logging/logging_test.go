package logging

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestEachLineInTheJournalHasItsPriority(t *testing.T) {
	var out bytes.Buffer
	l := logrus.New()
	l.SetOutput(&out)
	Configure(l, "trace", "auto", true)
	l.WithError(errors.New("two\nlines")).Error("e")
	l.Warn("w")
	l.Info("i")
	l.Debug("d")
	l.Trace("t")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines: %q", len(lines), out.String())
	}
	for i, prefix := range []string{"<3>", "<4>", "<6>", "<7>", "<7>"} {
		if !strings.HasPrefix(lines[i], prefix) || strings.Contains(lines[i], "time=") || strings.Contains(lines[i], "\x1b") {
			t.Errorf("line %q, want %s and no time or colour", lines[i], prefix)
		}
	}
}

func TestEveryLevelAndFormatIsUnderstood(t *testing.T) {
	for _, level := range []string{"error", "warn", "info", "debug", "trace"} {
		if _, err := logrus.ParseLevel(level); err != nil {
			t.Error(err)
		}
	}
	for format, want := range map[string]string{"auto": "time=", "text": "time=", "json": `{"level":"info","msg":"hello"`} {
		var out bytes.Buffer
		l := logrus.New()
		l.SetOutput(&out)
		Configure(l, "info", format, false)
		l.Info("hello")
		l.Debug("not at this level")
		if !strings.HasPrefix(out.String(), want) || strings.Contains(out.String(), "not at") {
			t.Errorf("%s: %q", format, out.String())
		}
	}
}

// lines is an io.Writer that sends each write to the test.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func TestErrorsOfTheServerAreWarnings(t *testing.T) {
	out := make(lines, 1)
	l := logrus.New()
	l.SetOutput(out)
	Configure(l, "info", "auto", true)
	faults, end := ForServer(l, logrus.WarnLevel)
	defer end.Close() // TestMain checks that its goroutine ends
	faults.Print("http: panic serving")
	if got := <-out; got != "<4>level=warning msg=\"http: panic serving\"\n" {
		t.Errorf("logged %q", got)
	}
}
