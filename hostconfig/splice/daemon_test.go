package splice

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What dockerd says of each form is recorded; test/hosts asks it again.
func TestDaemonJSONIsAcceptedAsByDockerd(t *testing.T) {
	data, err := os.ReadFile("testdata/daemon_forms.txt")
	if err != nil {
		t.Fatal(err)
	}
	forms := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		versions, quoted, _ := strings.Cut(strings.TrimSpace(line), ` "`)
		form, err := strconv.Unquote(`"` + quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		forms++
		for name, v := range map[string]Version{"20.10": {20, 10}, "26.1": {26, 1}, "28.5": {28, 5}, "29.7": {29, 7}} {
			_, err := ReadDaemon("f", []byte(form), v)
			if accepted := slices.Contains(strings.Fields(versions), name); accepted != (err == nil) {
				t.Errorf("%q: dockerd %s accepts it: %v; sidemirror says: %v", form, name, accepted, err)
			}
			if err != nil {
				wantProblem(t, err)
			}
		}
	}
	if forms < 150 {
		t.Errorf("only %d forms", forms)
	}
}

func TestMirrorIsAddedInTheStyleOfTheFile(t *testing.T) {
	const added = `"registry-mirrors": ["http://127.0.0.1:305"]`
	for name, test := range map[string]struct{ before, after string }{
		"empty":             {"", "{\n  " + added + "\n}\n"},
		"white space":       {" \n", "{\n  " + added + "\n} \n"},
		"byte order mark":   {"\xef\xbb\xbf{}", "\xef\xbb\xbf{" + added + "}"},
		"Unicode's spaces":  {"\u00a0\u2003{}\u00a0", "\u00a0\u2003{" + added + "}\u00a0"},
		"null":              {" null\n", " {" + added + "}\n"},
		"empty object":      {"{}", "{" + added + "}"},
		"open object":       {"{\n}\n", "{\n  " + added + "\n}\n"},
		"tabs":              {"{\n\t\"icc\": true,\n\t\"mtu\": 1450\n}\n", "{\n\t\"icc\": true,\n\t\"mtu\": 1450,\n\t" + added + "\n}\n"},
		"comma first":       {"{ \"icc\": true\n, \"mtu\": 1450\n}", "{ \"icc\": true\n, \"mtu\": 1450, " + added + "\n}"},
		"CRLF":              {"{\r\n  \"debug\": true\r\n}\r\n", "{\r\n  \"debug\": true,\r\n  " + added + "\r\n}\r\n"},
		"mirrors":           {`{"registry-mirrors": ["https://a/"]}`, `{"registry-mirrors": ["http://127.0.0.1:305", "https://a/"]}`},
		"mirrors on lines":  {"{\"registry-mirrors\": [\n  \"https://a\"\n]}", "{\"registry-mirrors\": [\n  \"http://127.0.0.1:305\",\n  \"https://a\"\n]}"},
		"empty list":        {`{"registry-mirrors": [ ]}`, `{"registry-mirrors": ["http://127.0.0.1:305" ]}`},
		"null list":         {`{"registry-mirrors": null}`, `{` + added + `}`},
		"escaped":           {`{"registry\u002dmirrors": []}`, `{"registry\u002dmirrors": ["http://127.0.0.1:305"]}`},
		"last of two lists": {`{"registry-mirrors": ["https://a"], "icc": true, "registry-mirrors": ["https://b"]}`, `{"registry-mirrors": ["https://a"], "icc": true, "registry-mirrors": ["http://127.0.0.1:305", "https://b"]}`},
		"list in an object": {`{"unknown": {"registry-mirrors": ["https://a"]}}`, `{"unknown": {"registry-mirrors": ["https://a"]}, ` + added + `}`},
		"brackets in text":  {`{"group": "}]{[\",:"}`, `{"group": "}]{[\",:", ` + added + `}`},
	} {
		file, err := ReadDaemon("f", []byte(test.before), Version{28, 5})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out, err := file.AddMirror(ourURL); err != nil || string(out) != test.after {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, out, test.after)
		}
	}
}

func TestUTF16StaysUTF16(t *testing.T) {
	for mark, order := range map[string]byteOrder{"\xff\xfe": littleEndian, "\xfe\xff": bigEndian} {
		wide := encoding{mark: []byte(mark), order: order}
		data := append([]byte(mark), wide.encode("{\r\n  \"labels\": [\"name=Zoë 🐳\"],\r\n  \"debug\": true\r\n}\r\n")...)
		file, err := ReadDaemon("f", data, Version{26, 1})
		if err != nil {
			t.Fatal(err)
		}
		out, err := file.AddMirror(ourURL)
		if err != nil {
			t.Fatal(err)
		}
		const want = "{\r\n  \"labels\": [\"name=Zoë 🐳\"],\r\n  \"debug\": true,\r\n  \"registry-mirrors\": [\"http://127.0.0.1:305\"]\r\n}\r\n"
		if !bytes.Equal(out, append([]byte(mark), wide.encode(want)...)) {
			t.Errorf("got %q", out)
		}
		if r := RemoveMirror(out, []string{ourURL}, nil); !r.Found || !bytes.Equal(r.Rest, data) {
			t.Errorf("came back as %q", r.Rest)
		}
		if _, err := ReadDaemon("f", data, Version{20, 10}); err == nil {
			t.Error("dockerd 20.10 does not read UTF-16")
		}
	}
}

func TestMirrorIsRemovedInAllItsSpellings(t *testing.T) {
	for _, url := range []string{
		"http://127.0.0.1:305", "http://127.0.0.1:305/", "HTTP://127.0.0.1:305", "http://localhost:305", "http://LocalHost:305//",
		"http://[::1]:305/", `http:\/\/127.0.0.1:305`, `http://127.0.0.1:30\u0035`, "http://localhost.:305", "http://127.0.0.1:5115/",
	} {
		text := `{"registry-mirrors": ["https://a", "` + url + `", "https://b"]}`
		r := RemoveMirror([]byte(text), []string{ourURL, "http://127.0.0.1:5115"}, nil)
		if !r.Found || string(r.Rest) != `{"registry-mirrors": ["https://a", "https://b"]}` {
			t.Errorf("%s: found %v, %s", url, r.Found, r.Rest)
		}
	}
	for _, url := range []string{"https://127.0.0.1:305", "http://127.0.0.2:305", "http://127.0.0.1:3050", "http://127.0.0.1", "http://127.0.0.1:305/path"} {
		text := `{"registry-mirrors": ["` + url + `"]}`
		if r := RemoveMirror([]byte(text), []string{ourURL}, nil); r.Found || string(r.Rest) != text {
			t.Errorf("%s was removed: %s", url, r.Rest)
		}
	}
}

func TestUsersEditsOfDaemonJSONStay(t *testing.T) {
	const ours = `"http://127.0.0.1:305"`
	for name, test := range map[string]struct{ before, now, after string }{
		"key added":           {`{"debug": true}`, `{"debug": true, "registry-mirrors": [` + ours + `], "icc": false}`, `{"debug": true, "icc": false}`},
		"key was null":        {`{"registry-mirrors": null}`, `{"registry-mirrors": [` + ours + `], "icc": false}`, `{"registry-mirrors": null, "icc": false}`},
		"list was empty":      {`{"registry-mirrors": []}`, `{"registry-mirrors": [` + ours + `], "icc": false}`, `{"registry-mirrors": [], "icc": false}`},
		"mirror added":        {`{}`, `{"registry-mirrors": ["https://b", ` + ours + `]}`, `{"registry-mirrors": ["https://b"]}`},
		"added many times":    {`{}`, `{"registry-mirrors": [` + ours + `, ` + ours + `, "https://b", ` + ours + `, "https://c", ` + ours + `]}`, `{"registry-mirrors": ["https://b", "https://c"]}`},
		"entry removed":       {`{}`, `{"icc": true}`, `{"icc": true}`},
		"first of members":    {`{}`, `{"registry-mirrors": [` + ours + `], "icc": true}`, `{"icc": true}`},
		"was an empty file":   {"", `{"registry-mirrors": [` + ours + `], "icc": true}`, `{"icc": true}`},
		"comment added":       {`{"debug": true}`, "{\n// why\n\"debug\": true, \"registry-mirrors\": [" + ours + "],\n}", "{\n// why\n\"debug\": true,\n}"},
		"comment in the list": {`{}`, "{\"registry-mirrors\": [ /* us */ " + ours + ", // them\n \"https://b\"]}", "{\"registry-mirrors\": [ // them\n \"https://b\"]}"},
		"empty comment":       {`{}`, "{/**/\"registry-mirrors\": [" + ours + ", \"https://b\"]}", "{/**/\"registry-mirrors\": [\"https://b\"]}"},
		"bracket missing":     {`{}`, `{"registry-mirrors": [` + ours + `, "https://b"]`, `{"registry-mirrors": ["https://b"]`},
		"list not closed":     {`{}`, `{"registry-mirrors": ["https://b", ` + ours, `{"registry-mirrors": ["https://b"`},
		"two lists":           {`{}`, `{"registry-mirrors": [` + ours + `], "registry-mirrors": [` + ours + `]}`, `{"registry-mirrors": [], "registry-mirrors": []}`},
		"in another place":    {`{}`, `{"labels": [` + ours + `], "unknown": {"registry-mirrors": [` + ours + `]}}`, `{"labels": [` + ours + `], "unknown": {"registry-mirrors": [` + ours + `]}}`},
	} {
		r := RemoveMirror([]byte(test.now), []string{ourURL}, []byte(test.before))
		if string(r.Rest) != test.after || r.Found != (test.now != test.after) {
			t.Errorf("%s: found %v, got\n%s\nwant\n%s", name, r.Found, r.Rest, test.after)
		}
	}
}

func TestFileThatSidemirrorMadeIsBare(t *testing.T) {
	file, err := ReadDaemon("f", nil, Version{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := file.AddMirror(ourURL)
	if err != nil {
		t.Fatal(err)
	}
	if r := RemoveMirror(out, []string{ourURL}, nil); !r.Found || !r.Bare {
		t.Errorf("%+v", r)
	}
	if r := RemoveMirror(append(out, '\n'), []string{ourURL}, nil); !r.Found || r.Bare {
		t.Errorf("a file that was edited: %+v", r)
	}
}

func TestRefusalsOfDaemonJSONNameTheLineAndAHint(t *testing.T) {
	for name, test := range map[string]struct {
		text       string
		line       int
		says, hint string
	}{
		"comment":        {"{\n// mine\n\"debug\": true}", 2, "not valid JSON", "remove the comment"},
		"trailing comma": {"{\"debug\": true,\n}", 2, "not valid JSON", "remove the comma"},
		"unknown key":    {"{\n\n\"mirrors\": []}", 3, `"mirrors" is no setting of dockerd 28.5`, "remove it"},
		"other case":     {"{\"Debug\": true}", 1, `"Debug" is no setting`, `write "debug"`},
		"nested key":     {"{\n\"proxies\": {\"proxy\": \"\"}}", 2, `"proxy" is no setting`, "remove it"},
		"type":           {"{\n\"debug\":\n\"yes\"}", 3, `"debug" has a JSON string where dockerd expects true or false`, "see https://"},
		"value":          {"{\n\"icc\": true,\n\"labels\": [\"x\"]}", 3, `"labels": "x" is no key=value label`, "correct"},
		"mirror":         {"{\n\"registry-mirrors\": [\"m.example:5000\"]}", 2, `"m.example:5000" is no http or https URL`, "correct"},
		"half a file":    {"{\n\"debug\": tr", 2, "not valid JSON", "correct"},
		"no object":      {"\n[]", 2, "is a JSON array, not an object", "write an object"},
		"bytes":          {"{\n\"group\": \"\xff\"}", 2, "not UTF-8", "save the file as UTF-8"},
		"ends in space":  {"{\n\"debug\": true\n", 2, "not valid JSON", "correct"},
		"starts wrong":   {"/* mine */ {}", 1, "not valid JSON", "remove the comment"},
		"second list":    {"{\"registry-mirrors\": [],\n\"registry-mirrors\": [1]}", 2, "where dockerd expects a string", "see https://"},
		"nesting":        {strings.Repeat("[", 1<<20), 1, "not valid JSON", "correct"},
	} {
		_, err := ReadDaemon("f", []byte(test.text), Version{28, 5})
		refused(t, name, nil, err, test.line, test.says)
		if p := problemIn(err); p != nil && !strings.Contains(p.Hint, test.hint) {
			t.Errorf("%s: the hint is %q", name, p.Hint)
		}
	}
}

// A file that some version accepts must not be refused if the version is unknown.
func TestAnUnknownDockerdAcceptsWhatAnyDoes(t *testing.T) {
	for text, accepted := range map[string]bool{
		"": true, "\xef\xbb\xbf{}": true, `{"graph": "/x"}`: true, `{"extension-dirs": []}`: true, `{"log-format": "json"}`: true,
		`{"api-cors-header": "*"}`: true, `{"registry-mirrors": ["a:5000"]}`: true, `{"exec-opts": ["x=y"]}`: true, `{"dns": ["10.0.0.2"]}`: true,
		`{"network-diagnostic-port": 65535}`: true, `{"labels": ["x"]}`: false, `{"dns": ["x"]}`: false, `{"debug": 1}`: false, `{"x": 1}`: false, "{} x": false,
	} {
		if _, err := ReadDaemon("f", []byte(text), Version{}); (err == nil) != accepted {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestKeysOfANewerDockerAreAccepted(t *testing.T) {
	const text = `{"brand-new": 1}`
	for v, accepted := range map[Version]bool{{}: false, {28, 5}: false, {29, 7}: false, {29, 8}: true, {30, 0}: true} {
		if _, err := ReadDaemon("f", []byte(text), v); (err == nil) != accepted {
			t.Errorf("%v: %v", v, err)
		}
	}
}

func TestMirrorsInForceAreThoseOfTheLastList(t *testing.T) {
	file, err := ReadDaemon("f", []byte(`{"registry-mirrors": ["https://a"], "registry-mirrors": ["http://127.0.0.1:305/", "https://b"]}`), Version{28, 5})
	if err != nil || !slices.Equal(file.Mirrors, []string{"http://127.0.0.1:305/", "https://b"}) || !file.Settled(ourURL) {
		t.Fatalf("%q, settled %v: %v", file.Mirrors, file.Settled(ourURL), err)
	}
	if file, err := ReadDaemon("f", []byte(`{"registry-mirrors": ["HTTP://127.0.0.1:305"]}`), Version{20, 10}); err != nil || file.Settled(ourURL) {
		t.Errorf("with a scheme in capitals it is settled, %v", err)
	}
	if got := string(file.ClearMirrors()); got != `{"registry-mirrors": ["https://a"], "registry-mirrors": []}` {
		t.Errorf("cleared: %s", got)
	}
	for text, list := range map[string]bool{"": false, "{}": false, `{"registry-mirrors": null}`: false, `{"registry-mirrors": []}`: true} {
		file, err := ReadDaemon("f", []byte(text), Version{28, 5})
		if err != nil || file.HasList() != list || file.Settled(ourURL) || file.Mirrors != nil && len(file.Mirrors) > 0 {
			t.Errorf("%s: list %v, mirrors %q: %v", text, file.HasList(), file.Mirrors, err)
		}
		if cleared := file.ClearMirrors(); (cleared != nil) != strings.Contains(text, mirrorsKey) {
			t.Errorf("%s: cleared to %q", text, cleared)
		}
	}
	var settings struct {
		Debug bool `json:"debug"`
	}
	if file, err = ReadDaemon("f", []byte(`{"debug": true}`), Version{28, 5}); err != nil || file.Decode(&settings) != nil || !settings.Debug {
		t.Errorf("%+v: %v", settings, err)
	}
}

// An editor with a fault must not get its output into a file.
func TestEditsThatChangeSomethingElseAreRefused(t *testing.T) {
	file, err := ReadDaemon("f", []byte(`{"debug": true, "registry-mirrors": ["https://a"]}`), Version{28, 5})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{ourURL, "https://a"}
	for out, ok := range map[string]bool{
		`{"debug": true, "registry-mirrors": ["http://127.0.0.1:305", "https://a"]}`:                true,
		`{"registry-mirrors": ["http://127.0.0.1:305", "https://a"], "debug": true}`:                true,
		`{"debug": false, "registry-mirrors": ["http://127.0.0.1:305", "https://a"]}`:               false,
		`{"registry-mirrors": ["http://127.0.0.1:305", "https://a"]}`:                               false,
		`{"debug": true, "icc": true, "registry-mirrors": ["http://127.0.0.1:305", "https://a"]}`:   false,
		`{"debug": true, "registry-mirrors": ["https://a", "http://127.0.0.1:305"]}`:                false,
		`{"debug": true, "registry-mirrors": ["http://127.0.0.1:305"]}`:                             false,
		`{"debug": true, "registry-mirrors": ["http://127.0.0.1:305", "https://a"]`:                 false,
		`{"debug": true, "mirrors": [], "registry-mirrors": ["http://127.0.0.1:305", "https://a"]}`: false,
	} {
		if err := file.verify([]byte(out), want); (err == nil) != ok {
			t.Errorf("%s: %v", out, err)
		}
	}
	d, err := parseTOML("f", []byte("a = 1\n[host.x]\nb = nan\n"))
	if err != nil {
		t.Fatal(err)
	}
	for out, ok := range map[string]bool{
		"a = 1\n[host.y]\n[host.x]\nb = nan\n":   true,
		"[host.y]\nc = 1\n[host.x]\nb = nan\n":   false,
		"a = 1\n[host.x]\nb = 2\n[host.y]\n":     false,
		"a = \"1\"\n[host.y]\n[host.x]\nb = nan": false,
		"a = 1\n[host.y]\n":                      false,
		"a = 1\n[host.y]\n[host.x]\nb = nan\nc=": false,
	} {
		if err := d.sameExcept([]byte(out), []string{"host", "y"}); (err == nil) != ok {
			t.Errorf("%q: %v", out, err)
		}
	}
}
