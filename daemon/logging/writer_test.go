package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/internal/logline"
)

// gate is a reader of the log that takes nothing until it is opened.
type gate struct {
	open    chan struct{}
	longest int // bytes of one write
	bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.longest = max(g.longest, len(b))
	return g.Buffer.Write(b)
}

func TestLinesComeOutInOrderAndAllOfThem(t *testing.T) {
	to := &gate{open: make(chan struct{})}
	w := NewWriter(to)
	const writers, each = 8, 4000
	line := func(writer, n int) string {
		return fmt.Sprintf("%d %d %s\n", writer, n, strings.Repeat("x", 100))
	}
	var wait sync.WaitGroup
	for i := range writers { // together more than may be pending
		wait.Go(func() {
			for n := range each {
				if n%100 > 0 {
					w.later([]byte(line(i, n)))
				} else if _, err := w.Write([]byte(line(i, n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	close(to.open)
	wait.Wait()
	_ = w.Close()
	w.later([]byte("after the end\n"))
	var next [writers]int
	text, last, _ := strings.Cut(to.String(), "after the end\n")
	for got := range strings.Lines(text) {
		var i, n int
		if _, err := fmt.Sscanf(got, "%d %d ", &i, &n); err != nil || n != next[i] || got != line(i, n) {
			t.Fatalf("line %q of writer %d, want number %d", got, i, next[i])
		}
		next[i]++
	}
	for i, n := range next {
		if n != each {
			t.Errorf("writer %d: %d lines of %d", i, n, each)
		}
	}
	if last != "" {
		t.Errorf("%q after the last line", last)
	}
}

func TestOtherLinesAreOutWhenWriteReturns(t *testing.T) {
	var to bytes.Buffer
	w := NewWriter(&to)
	defer w.Close()
	for i := range 100 {
		w.later([]byte("request\n"))
		if _, err := w.Write([]byte("warning\n")); err != nil {
			t.Fatal(err)
		}
		w.writing.Lock()
		if got := strings.Count(to.String(), "request\nwarning\n"); got != i+1 {
			t.Errorf("%d of %d pairs are out", got, i+1)
		}
		w.writing.Unlock()
	}
}

func TestWhatIsPendingIsBounded(t *testing.T) {
	to := &gate{open: make(chan struct{})}
	w := NewWriter(to)
	third := bytes.Repeat([]byte("x"), maxPending/3)
	const lines = 12
	var wait sync.WaitGroup
	for range lines {
		wait.Go(func() { w.later(third) })
	}
	close(to.open)
	wait.Wait()
	_ = w.Close()
	if to.Len() != lines*len(third) || to.longest > maxPending {
		t.Errorf("%d bytes came out, want %d; %d were pending", to.Len(), lines*len(third), to.longest)
	}
}

// Each format of the access log is the one that the logger has for its other lines.
func TestAccessLinesLookLikeTheLoggersOwn(t *testing.T) {
	fields := []logline.Field{logline.Int("bytes", 7), logline.Text("path", "/a b"), logline.Int("status", 200)}
	for _, tt := range []struct {
		format  string
		journal bool
	}{{"auto", true}, {"auto", false}, {"text", true}, {"json", true}} {
		var to bytes.Buffer
		w := NewWriter(&to)
		l := logrus.New()
		l.SetOutput(w)
		Configure(l, "info", tt.format, tt.journal)
		a := NewAccess(l, w)
		a.Configure()
		a.Write(time.Now(), logrus.WarnLevel, "request", fields)
		a.Write(time.Now(), logrus.DebugLevel, "request", fields)
		l.WithFields(logrus.Fields{"bytes": 7, "path": "/a b", "status": 200}).Warn("request")
		_ = w.Close()
		lines := strings.Split(to.String(), "\n")
		if len(lines) != 3 || shape(t, lines[0]) != shape(t, lines[1]) {
			t.Errorf("%+v: %q", tt, lines)
		}
	}
}

// shape returns a line without its time.
func shape(t *testing.T, line string) string {
	t.Helper()
	if !strings.HasPrefix(line, "{") {
		before, after, _ := strings.Cut(line, "level=")
		return fmt.Sprint(strings.HasPrefix(before, "time="), strings.HasPrefix(before, "<4>"), after)
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(line), &all); err != nil {
		t.Fatal(err)
	}
	if all["time"] == "" {
		t.Error("no time")
	}
	delete(all, "time")
	return fmt.Sprint(all)
}

func TestColouredAccessLinesGoThroughTheLogger(t *testing.T) {
	var to bytes.Buffer
	w := NewWriter(&to)
	l := logrus.New()
	l.SetOutput(w)
	l.SetFormatter(&logrus.TextFormatter{ForceColors: true})
	a := NewAccess(l, w)
	a.Configure()
	a.Write(time.Now(), logrus.InfoLevel, "request", []logline.Field{logline.Int("status", 200)})
	_ = w.Close()
	if out := to.String(); !strings.Contains(out, "\x1b[") || !strings.Contains(out, "=200") {
		t.Errorf("%q", out)
	}
}
