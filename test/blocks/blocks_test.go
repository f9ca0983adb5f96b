package blocks

import (
	"reflect"
	"strings"
	"testing"
)

func TestMarkdownBlocksAreFoundInListsToo(t *testing.T) {
	text := "intro\n\n```\nmake it   # quickly\n```\n\n1. first\n\n   ```console\n   $ ls /\n   bin\n   $ id\n   ```\n\n````toml\n```\nx = 1\n````\n"
	want := []Block{
		{"d.md", 4, "", "make it   # quickly\n"},
		{"d.md", 10, "console", "$ ls /\nbin\n$ id\n"},
		{"d.md", 16, "toml", "```\nx = 1\n"},
	}
	got := Markdown("d.md", text)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v", got)
	}
	if c := got[0].Commands(); c != "make it" {
		t.Errorf("commands %q", c)
	}
	if c, o := got[1].Commands(), got[1].Output(); c != "ls /\nid" || !reflect.DeepEqual(o, []string{"bin"}) {
		t.Errorf("commands %q, output %q", c, o)
	}
}

func TestPageBlocksAreUnescaped(t *testing.T) {
	got := Page("page", "<p><code>no</code></p><pre><code>a &lt;&lt;&#39;END&#39; &amp;&amp; b\nEND</code></pre>")
	if len(got) != 1 || got[0].Text != "a <<'END' && b\nEND\n" {
		t.Errorf("got %+v", got)
	}
}

func TestManualBlocksAreThoseOfTheExamples(t *testing.T) {
	got := Manual("x(1)", ".SH SYNOPSIS\n.nf\nno\n.fi\n.SH EXAMPLES\nText.\n.PP\n.nf\n  sidemirror pull \\-\\-all\n  b\n.fi\n.SH SEE ALSO\n.nf\nno\n.fi\n")
	if len(got) != 1 || got[0].Text != "sidemirror pull --all\nb\n" || got[0].Line != 9 {
		t.Errorf("got %+v", got)
	}
}

func TestTableMustKnowEveryBlockAndNoOther(t *testing.T) {
	a, b := Block{Document: "a.md", Text: "sudo one  # x\n"}, Block{Document: "b.md", Text: "sudo one two\n"}
	again := Block{Document: "c.md", Text: "sudo one\n"}
	tasks, err := Tasks([]Entry{{Begins: "sudo one", On: "h"}, {Begins: "sudo one two", Exempt: "no"}}, []Block{a, b, again})
	if err != nil || len(tasks) != 2 || len(tasks[0].Blocks) != 2 || tasks[1].Exempt != "no" {
		t.Errorf("%v, %+v", err, tasks)
	}
	for want, c := range map[string]struct {
		table  []Entry
		blocks []Block
	}{
		"b.md:0: a block that the table does not know":      {[]Entry{{Begins: "sudo one ", Exempt: "only the whole text counts"}, {Begins: "sudo one x", On: "h"}}, []Block{b}},
		`no document has the block that begins with "gone"`: {[]Entry{{Begins: "gone", On: "h"}}, nil},
		"must name a host or a reason":                      {[]Entry{{Begins: "sudo one"}}, []Block{a}},
	} {
		if _, err := Tasks(c.table, c.blocks); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
