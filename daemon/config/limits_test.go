package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestManyFaultsAreReportedAtOnceUpToALimit(t *testing.T) {
	_, err := Load(writeConfig(t, "a=1\nb=1\n[log]\nlevel='x'\n"), nil)
	for _, want := range []string{":1:1:", ":2:1:", ":4:7:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in\n%v", want, err)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "k%d = 1\n", i)
	}
	_, err = Load(writeConfig(t, many.String()), nil)
	if err == nil || strings.Count(err.Error(), "\n") > 4*maxFaults+2 || !strings.Contains(err.Error(), "and 990 more") {
		t.Errorf("not bounded:\n%.2000v", err)
	}
}

func TestFileThatWouldTakeMinutesIsRefused(t *testing.T) {
	numbered := func(form string) string {
		var b strings.Builder
		for i := 0; b.Len() < maxFileSize-100; i++ {
			fmt.Fprintf(&b, form, i)
		}
		return b.String()
	}
	nested := func(open, middle, end string, n int) string {
		return "x = " + strings.Repeat(open, n) + middle + strings.Repeat(end, n)
	}
	for name, text := range map[string]string{
		"keys":           numbered("k%d = 1\n"),
		"tables":         numbered("[k%d.a]\n"),
		"registries":     numbered("[registry.'k%d.a']\n"),
		"elements":       "listen = [" + strings.Repeat("'x',", maxFileSize/4-10) + "]",
		"dots":           strings.Repeat("a.", maxFileSize/2-10) + "a = 1",
		"nested lists":   nested("[", "", "]", 9000),
		"nested tables":  nested("{a=", "1", "}", 9000),
		"beyond nesting": nested("[", "", "]", 100_000),
		"one string":     "listen = '" + strings.Repeat("x", maxFileSize-20) + "'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Without limits, keys and tables took minutes.
			_, err := parse("config.toml", []byte(text), nil)
			if err == nil || len(err.Error()) > 10_000 {
				t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
			}
		})
	}
}

func TestEndlessFileIsRefused(t *testing.T) {
	if _, err := Load("/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/zero gave %v", err)
	}
	if _, err := Load(writeConfig(t, strings.Repeat("#\n", maxFileSize/2+1)), nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file too big gave %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(everything, "info")
	f.Add("[outbound]\nhttps_proxy='http://u:p%40s@[fe80::1%25e]:3128/'\nhttp_proxy='u@p'\nno_proxy=['10.0.0.0/8','*','.a:5']\nadopt_proxy=false", "")
	f.Add("[registry.docker.io]\nx=1", "")
	f.Add("a={b={c=[1,[2,{d=1}]]}}\r\n[[x]]\n", "debug")
	f.Add("listen=[\"\"\"\n1\"\"\"]", "warn")
	f.Add("\"\"=1\n[\"\"]", "x")
	f.Fuzz(func(t *testing.T, text, level string) {
		c, err := parse("config.toml", []byte(text), map[string]string{"SIDEMIRROR_LOG_LEVEL": level})
		if err != nil {
			if lines := strings.Count(err.Error(), "\n"); lines > 4*maxFaults+2 {
				t.Errorf("an error of %d lines", lines)
			}
			return
		}
		var shown bytes.Buffer
		if err := c.WriteTOML(&shown); err != nil {
			t.Fatal(err)
		}
		if _, err := parse("shown.toml", shown.Bytes(), nil); err != nil {
			t.Errorf("%q is shown as\n%s\nwhich is refused:\n%v", text, shown.String(), err)
		}
	})
}
