package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestErrorNamesFileLineTextAndCauseWithoutTheHint(t *testing.T) {
	for _, test := range []struct {
		problem problem.Problem
		want    string
	}{
		{problem.Problem{Path: "/etc/a", Line: 2, Text: "not valid JSON", Hint: "remove it", Err: fs.ErrInvalid}, "/etc/a:2: not valid JSON: invalid argument"},
		{problem.Problem{Path: "/etc/a", Line: 2, Text: "not valid JSON"}, "/etc/a:2: not valid JSON"},
		{problem.Problem{Path: "/etc/a", Err: fs.ErrInvalid}, "/etc/a: invalid argument"},
		{problem.Problem{Text: "no engine runs", Line: 3}, "no engine runs"},
		{problem.Problem{Path: "/etc/a\nerror: b", Line: 1, Text: "x"}, `"/etc/a\nerror: b":1: x`},
	} {
		if got := test.problem.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestProblemIsFoundThroughWrappedErrors(t *testing.T) {
	cause := &problem.Problem{Code: "disk-full", Hint: "free space", Err: fs.ErrInvalid}
	err := errors.Join(errors.New("first"), fmt.Errorf("applying: %w", cause))
	var found *problem.Problem
	if !errors.As(err, &found) || found.Code != "disk-full" || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("found %+v", found)
	}
	if got := problem.Hint(err); got != "free space" {
		t.Errorf("hint %q", got)
	}
	for _, err := range []error{nil, fs.ErrInvalid, fmt.Errorf("a: %w", fs.ErrInvalid), errors.Join(fs.ErrInvalid)} {
		if got := problem.Hint(err); got != "" {
			t.Errorf("hint of %v: %q", err, got)
		}
	}
	outer := &problem.Problem{Text: "outer", Err: cause}
	if got := problem.Hint(outer); got != "free space" {
		t.Errorf("hint of the cause: %q", got)
	}
}

func TestFormatPutsEachHintBelowItsError(t *testing.T) {
	err := errors.Join(
		&problem.Problem{Path: "/a", Text: "read-only", Hint: "remount it"},
		errors.Join(errors.New("plain"), fmt.Errorf("applying: %w", &problem.Problem{Text: "full", Hint: "free space"})),
		fmt.Errorf("%w and %w", errors.New("x"), errors.New("y")),
	)
	want := "sidemirror: /a: read-only\nhint: remount it\nsidemirror: plain\nsidemirror: applying: full\nhint: free space\nsidemirror: x and y"
	if got := problem.Format("sidemirror: ", err); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := problem.Format("sidemirror: ", nil); got != "" {
		t.Errorf("of nil: %q", got)
	}
	if parts := problem.Split(err); len(parts) != 4 {
		t.Errorf("%d parts", len(parts))
	}
}

func TestQuotePathKeepsAPathOnOneLine(t *testing.T) {
	for name, want := range map[string]string{
		"/etc/docker/daemon.json": "/etc/docker/daemon.json",
		"/srv/übung/镜像":           "/srv/übung/镜像",
		"/a\nb":                   `"/a\nb"`,
		"/a\x1b[2Jb":              `"/a\x1b[2Jb"`,
		"/a\u202eb":               `"/a\u202eb"`,
		"/a\xffb":                 `"/a\xffb"`,
	} {
		if got := problem.QuotePath(name); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestJSONHasTheWholeText(t *testing.T) {
	got, err := json.Marshal(&problem.Problem{Code: "disk-full", Path: "/x", Line: 3, Text: "writing it", Hint: "free space", Err: errors.New("no space")})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"code":"disk-full","path":"/x","line":3,"text":"writing it: no space","hint":"free space"}`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestCodedKeepsCodeAndHint(t *testing.T) {
	coded := &problem.Problem{Code: "own-code", Path: "/x", Text: "text", Hint: "hint"}
	bare := &problem.Problem{Path: "/x", Text: "text"}
	for name, test := range map[string]struct {
		err        error
		code       problem.Code
		hint, text string
	}{
		"problem":         {coded, "own-code", "hint", "/x: text"},
		"without a code":  {bare, "code", "", "/x: text"},
		"cause of more":   {fmt.Errorf("reading: %w", coded), "own-code", "hint", "reading: /x: text"},
		"of several":      {errors.Join(coded, errors.New("more")), "own-code", "hint", "/x: text\nmore"},
		"any other error": {errors.New("plain"), "code", "", "plain"},
	} {
		got := problem.Coded(test.err, "code")
		if got.Code != test.code || got.Hint != test.hint || got.Error() != test.text {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if bare.Code != "" {
		t.Error("the error itself was changed")
	}
}
