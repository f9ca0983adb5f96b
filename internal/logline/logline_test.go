package logline

import (
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// FuzzLine compares each form of a line with what logrus makes of the same values.
func FuzzLine(f *testing.F) {
	f.Add("docker.io", "library/alpine", int64(200), int64(1234567), int64(0))
	f.Add("", "a b\n\"c\"", int64(-1), int64(-5), int64(1<<40))
	f.Add("<&>\u2028", "\xff\x00é", int64(1<<62), int64(1500), int64(1))
	f.Fuzz(func(t *testing.T, one, two string, status, took, at int64) {
		when := time.Unix(at%(1<<36), 0)
		if y := when.Year(); y < 0 || y > 9999 {
			return
		}
		line := Line{Time: when, Level: "warning", Message: "request", Fields: []Field{
			Duration("duration", time.Duration(took)), Text("error", one), Text("path", two), Int("status", status),
		}}
		data := logrus.Fields{}
		for _, field := range line.Fields {
			data[field.Name] = field.Value()
		}
		entry := &logrus.Entry{Logger: logrus.New(), Time: when, Level: logrus.WarnLevel, Message: "request", Data: data}
		compare(t, entry, &logrus.TextFormatter{DisableColors: true}, line.AppendText(nil))
		compare(t, entry, new(logrus.JSONFormatter), line.AppendJSON(nil))
		line.Time = time.Time{}
		compare(t, entry, &logrus.TextFormatter{DisableColors: true, DisableTimestamp: true}, line.AppendText(nil))
		compare(t, entry, &logrus.JSONFormatter{DisableTimestamp: true}, line.AppendJSON(nil))
	})
}

func compare(t *testing.T, entry *logrus.Entry, formatter logrus.Formatter, got []byte) {
	t.Helper()
	want, err := formatter.Format(entry)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func BenchmarkLine(b *testing.B) {
	line := Line{Time: time.Now(), Level: "info", Message: "request", Fields: []Field{
		Int("bytes", 1234), Text("cache", "hit"), Text("digest", "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
		Duration("duration", 123*time.Microsecond), Text("kind", "manifest"), Text("method", "GET"),
		Text("registry", "docker.io"), Text("repository", "library/alpine"), Int("status", 200), Int("uid", 0),
	}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = line.AppendText(buf[:0])
	}
}
