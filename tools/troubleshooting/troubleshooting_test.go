package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePageIsWhatTheProgramPrints(t *testing.T) {
	made, err := generate(t.Context(), "../..")
	if err != nil {
		t.Fatalf("%v\nthen run: make troubleshooting", err)
	}
	have, err := os.ReadFile(filepath.Join("../..", target))
	if err != nil {
		t.Fatal(err)
	}
	if made != string(have) {
		t.Errorf("%s is not what the program prints; run: make troubleshooting", target)
	}
}

// program writes a module like sidemirror's, with one more file, and returns its root.
func program(t *testing.T, file string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                      "module " + module + "\n\ngo 1.26\n",
		"internal/problem/problem.go": "package problem\n\ntype Code string\n\ntype Problem struct {\n\tCode Code\n\tText, Hint string\n\tErr error\n}\n\nfunc Coded(err error, code Code) *Problem { return &Problem{Code: code, Err: err} }\n",
		"main.go":                     "package main\n\nimport (\n\t\"fmt\"\n\n\t\"" + module + "/internal/problem\"\n)\n\nfunc main() { fmt.Println(all()) }\n\n" + file,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestACodeIsFoundHoweverItIsWritten(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		want use // of the code "x-y"
	}{
		"in a literal": {`func all() any { return problem.Problem{Code: "x-y", Text: "text", Hint: "hint"} }`, use{"main.go", "text", "hint"}},
		"in a literal without the type's name": {`func all() any { return []*problem.Problem{{Code: "x-y", Text: "a " + fmt.Sprint(1) + " b"}} }`,
			use{"main.go", "a … b", ""}},
		"with a format": {`func all() any { return problem.Problem{Code: "x-y", Text: fmt.Sprintf("%d%% of %q", 1, "a"), Hint: fmt.Sprint(1)} }`,
			use{"main.go", "…% of …", ""}},
		"with a cause":                 {`func all() any { return problem.Problem{Code: "x-y", Text: "text", Err: fmt.Errorf("e")} }`, use{"main.go", "text: …", ""}},
		"as a constant":                {"const code = \"x-y\"\n\nfunc all() any { return problem.Problem{Code: code, Text: \"text\"} }", use{"main.go", "text", ""}},
		"as a typed constant":          {"const code problem.Code = \"x-y\"\n\nfunc all() any { return problem.Problem{Code: code, Text: \"text\"} }", use{"main.go", "text", ""}},
		"for a problem without a code": {`func all() any { return problem.Coded(nil, "x-y") }`, use{"main.go", "", ""}},
		"in an assignment":             {"func all() any {\n\tp := problem.Problem{}\n\tp.Code = \"x-y\"\n\treturn p\n}", use{"main.go", "", ""}},
		"in a table":                   {"func all() any { return struct{ c problem.Code }{\"x-y\"} }", use{"main.go", "", ""}},
		"as an argument, with a format": {"func refuse(code problem.Code, hint, format string, args ...any) any { return fmt.Sprint(code, hint, format, args) }\n\nfunc all() any { return refuse(\"x-y\", \"hint\", \"%s is wrong\", 1) }",
			use{"main.go", "… is wrong", "hint"}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := find(t.Context(), program(t, test.file))
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range found["x-y"] {
				if u == test.want {
					return
				}
			}
			t.Errorf("found %+v, want %+v", found, test.want)
		})
	}
}

func TestACodeThatIsMadeFromPartsIsAnError(t *testing.T) {
	for name, file := range map[string]string{
		"a conversion": "func all() any { return problem.Coded(nil, problem.Code(fmt.Sprint(1))) }",
		"a sum":        "func all() any {\n\tc := problem.Code(\"a\")\n\treturn problem.Coded(nil, c+\"-x\")\n}",
	} {
		if _, err := find(t.Context(), program(t, file)); err == nil || !strings.Contains(err.Error(), "main.go:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEachCodeHasOneWholeEntry(t *testing.T) {
	known := codes{"a": {{at: "main.go", text: strings.Repeat("word ", 40), hint: "do `it`"}}, "b": {{at: "main.go"}}}
	const a, b = "### `a`\nIt is broken.\nRepair it.\n", "### `b`\nIt is gone.\nFetch it.\n"
	for name, test := range map[string]struct{ entries, wrong string }{
		"both":                   {a + "\n" + b, ""},
		"one without an entry":   {a, "b (in main.go) has no entry"},
		"one with two":           {a + "\n" + b + "\n" + a, "a has two entries"},
		"an entry without one":   {a + "\n" + b + "\n### `c`\nIt is old.\nForget it.\n", "c has an entry, and the program prints no such code"},
		"one without a title":    {a + "\n### `b`\nFetch it.\n", "needs a code, a title"},
		"one with a bare title":  {a + "\n### `b`\nIt is gone\nFetch it.\n", "needs a code, a title"},
		"one that is not a code": {a + "\n### b\nIt is gone.\nFetch it.\n", "needs a code, a title"},
	} {
		made, err := page("# Title\n\nHead.\n\n## Section\n\n"+test.entries, known)
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %v, want %q", name, err, test.wrong)
		}
		if test.wrong == "" && (!strings.Contains(made, "### `a`\n\n**It is broken.**\nRepair it.\n\n- “word word") || !strings.Contains(made, "\n  hint: do \\`it\\`\n")) {
			t.Errorf("the page is\n%s", made)
		}
		for line := range strings.Lines(made) {
			if len(line) > width+1 {
				t.Errorf("%d characters in %q", len(line), line)
			}
		}
	}
}
