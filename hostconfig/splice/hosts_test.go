package splice

import (
	"strings"
	"testing"
)

var library23 = Version{2, 3}

func TestHostsFileNamesSidemirrorFirst(t *testing.T) {
	h := Hosts{URL: ourURL, Library: library23, CA: []string{"ca.crt"}, Clients: [][]string{{"both.cert"}, {"me.cert", "me.key"}}, Server: "https://s.example"}
	want := FileMark + "\nca = [\"ca.crt\"]\nclient = [\"both.cert\", [\"me.cert\", \"me.key\"]]\nserver = \"https://s.example\"\n\n" +
		"[host.\"http://127.0.0.1:305\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n"
	if got := string(h.File()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Case 15 and engines.md: a library before 2.2 rejects the whole file because of "referrers".
func TestCapabilitiesFollowTheLibrary(t *testing.T) {
	for version, referrers := range map[Version]bool{{}: false, {1, 7}: false, {2, 1}: false, {2, 2}: true, {2, 4}: true, {3, 0}: true} {
		h := Hosts{URL: ourURL, Registry: "r.example", Library: version}
		for _, base := range []string{"", theirs, "server = \"https://r.example\""} {
			out, err := h.Add("f", []byte(base))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(string(out), "referrers"); got != referrers {
				t.Errorf("%v: referrers is %v in\n%s", version, got, out)
			}
			for _, word := range []string{"push", "skip_verify", "dial_timeout"} {
				if strings.Contains(string(out), word) {
					t.Errorf("%s in\n%s", word, out)
				}
			}
		}
	}
}

func TestAnotherLibraryVersionUnsettlesTheFile(t *testing.T) {
	before, after := Hosts{URL: ourURL, Library: Version{2, 1}}, Hosts{URL: ourURL, Library: Version{2, 2}}
	for _, base := range []string{"", theirs} {
		out, err := before.Add("f", []byte(base))
		if err != nil || !before.Settled("f", out) || after.Settled("f", out) {
			t.Errorf("%q, %v: settled for 2.1 %v, for 2.2 %v", out, err, before.Settled("f", out), after.Settled("f", out))
		}
	}
}

func TestEditedFileIsSettledUntilAnotherHostComesFirst(t *testing.T) {
	h := Hosts{URL: ourURL, Library: library23}
	out, err := h.Add("f", []byte(theirs))
	if err != nil || !h.Settled("f", out) {
		t.Fatal(err)
	}
	text := string(out)
	for name, test := range map[string]struct {
		text    string
		settled bool
	}{
		"header added to sidemirror's table": {strings.Replace(text, "\"referrers\"]\n", "\"referrers\"]\n[host.\"http://127.0.0.1:305\".header]\nx = \"y\"\n", 1), true},
		"another host first":                 {"[host.\"https://first.example\"]\n" + text, false},
		"push added":                         {strings.Replace(text, "\"referrers\"", "\"push\"", 1), false},
		"the user's own table":               {strings.Replace(text, tableMark+"\n", "", 1), true},
		"the user's own table with a slash":  {strings.Replace(text[strings.Index(text, "[host"):], ":305", ":305/", 1), true},
		"the user's own table in capitals":   {strings.Replace(text[strings.Index(text, "[host"):], "http:", "HTTP:", 1), false},
		"the user's own table that pushes":   {"[host.\"http://127.0.0.1:305\"]\n", false},
	} {
		if got := h.Settled("f", []byte(test.text)); got != test.settled {
			t.Errorf("%s: settled is %v", name, got)
		}
	}
}

// B2 and B5 of host-configuration.md, and its serious finding about sidemirror's own address.
func TestCarriedMirrorsKeepTheirTLSSettings(t *testing.T) {
	h := Hosts{URL: ourURL, Registry: "docker.io", Library: library23, Mirrors: []Mirror{
		{URL: "http://127.0.0.1:305/"}, {URL: "http://LOCALHOST:305"},
		{URL: "https://m.example:5000", CA: []string{"/etc/docker/certs.d/docker.io/ca.crt"}, Clients: [][]string{{"a.cert", "a.key"}}},
		{URL: "https://insecure.example", SkipVerify: true}, {URL: "https://m.example:5000/"},
	}}
	const mirrors = "[host.\"https://m.example:5000\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  ca = [\"/etc/docker/certs.d/docker.io/ca.crt\"]\n  client = [[\"a.cert\", \"a.key\"]]\n\n" +
		tableMark + "\n[host.\"https://insecure.example\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  skip_verify = true\n"
	for _, base := range []string{"", "server = \"https://registry-1.docker.io\"\n", "# comment"} {
		out, err := h.Add("f", []byte(base))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(out)+"\n", mirrors) || strings.Count(string(out), "305") != 1 {
			t.Errorf("got\n%s", out)
		}
		if !h.Settled("f", out) {
			t.Errorf("not settled:\n%s", out)
		}
		for _, other := range []Hosts{{URL: ourURL, Library: library23}, {URL: ourURL, Library: library23, Mirrors: []Mirror{{URL: "https://m.example:5000"}}}} {
			if other.Settled("f", out) {
				t.Errorf("settled for %+v:\n%s", other.Mirrors, out)
			}
		}
	}
	out, err := h.Add("f", []byte(theirs))
	if err != nil || strings.Contains(string(out), "m.example:5000") {
		t.Errorf("dockerd did not ask the mirrors before, next to the hosts of the file: %v\n%s", err, out)
	}
}

func TestUsersEditsStayWhenTheTablesAreRemoved(t *testing.T) {
	h := Hosts{URL: ourURL, Registry: "docker.io", Library: library23, CA: []string{"ca.crt"}, Mirrors: []Mirror{{URL: "https://m.example"}}}
	fresh := string(h.File())
	added, err := h.Add("f", []byte(theirs))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text, rest  string
		found, bare bool
	}{
		"file of sidemirror's":       {fresh, "ca = [\"ca.crt\"]\n", true, true},
		"host added to it":           {fresh + "\n" + theirs, "ca = [\"ca.crt\"]\n\n" + theirs, true, false},
		"comment added to it":        {"# mine\n" + fresh, "# mine\nca = [\"ca.crt\"]\n", true, false},
		"setting added to it":        {"server = \"https://s\"\n" + fresh, "server = \"https://s\"\nca = [\"ca.crt\"]\n", true, false},
		"host added to the other":    {string(added) + "# new\n[host.\"https://c.example\"]\n", theirs + "# new\n[host.\"https://c.example\"]\n", true, false},
		"header added to the table":  {strings.Replace(string(added), "\n\n", "\n  [host.\"http://127.0.0.1:305\".header]\n    x = \"z\"\n\n", 1), theirs, true, false},
		"the mark removed":           {strings.Replace(string(added), tableMark+"\n", "", 1), theirs, true, false},
		"a slash added":              {strings.NewReplacer(tableMark+"\n", "", ":305", ":305/").Replace(string(added)), theirs, true, false},
		"the host written otherwise": {strings.NewReplacer(tableMark+"\n", "", "127.0.0.1", "LocalHost").Replace(string(added)), theirs, true, false},
		"the table removed":          {theirs, theirs, false, false},
		"a mark inside a string":     {"server = \"\"\"\n" + FileMark + "\n\"\"\"\n[host.\"http://127.0.0.1:1\"]\n", "server = \"\"\"\n" + FileMark + "\n\"\"\"\n[host.\"http://127.0.0.1:1\"]\n", false, false},
	} {
		r, err := RemoveHosts("f", []byte(test.text), []string{ourURL})
		if err != nil || string(r.Rest) != test.rest || r.Found != test.found || r.Bare != test.bare {
			t.Errorf("%s: found %v, bare %v, %v, got\n%s\nwant\n%s", name, r.Found, r.Bare, err, r.Rest, test.rest)
		}
	}
}

func TestEmptyLinesAroundRemovedTablesStay(t *testing.T) {
	const ours = tableMark + "\n[host.\"http://127.0.0.1:305\"]\n"
	const other = tableMark + "\n[host.\"https://m.example\"]\n"
	for text, rest := range map[string]string{
		"# a\n\n" + ours:                                      "# a\n",
		"# a\n\n" + ours + "\n":                               "# a\n\n",
		"# a\n\n" + ours + "\n" + other:                       "# a\n",
		"# a\n\n" + ours + "\n" + other + "\n\n":              "# a\n\n\n",
		"# a\n\n" + ours + "\n\n" + other:                     "# a\n\n",
		ours + "\n" + theirs:                                  theirs,
		ours + theirs:                                         theirs,
		ours + "\n" + theirs + "\n" + other:                   theirs,
		ours + "\n# between\n" + other + "\n" + theirs:        "# between\n" + theirs,
		"# a\n\n" + strings.TrimSuffix(ours+"\n"+other, "\n"): "# a",
	} {
		if r, err := RemoveHosts("f", []byte(text), nil); err != nil || string(r.Rest) != rest {
			t.Errorf("%q became %q, want %q: %v", text, r.Rest, rest, err)
		}
	}
}

func TestTablesAreRemovedFromAFileThatIsNotValidAnyMore(t *testing.T) {
	h := Hosts{URL: ourURL, Registry: "docker.io", Library: library23, Mirrors: []Mirror{{URL: "https://m.example", SkipVerify: true}}}
	for _, base := range []string{"", theirs, "server = \"https://registry-1.docker.io\"\n"} {
		out, err := h.Add("f", []byte(base))
		if err != nil {
			t.Fatal(err)
		}
		const broken = "[host.\n[host.\"https://user.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
		r, err := RemoveHosts("f", append(out, broken...), nil)
		if rest := strings.ReplaceAll(string(r.Rest), "\n\n", "\n"); err != nil || !r.Found || rest != base+broken {
			t.Errorf("%q became %q: %v", out, rest, err)
		}
	}
	if r, err := RemoveHosts("f", []byte("[host.\n"), nil); err != nil || r.Found || string(r.Rest) != "[host.\n" {
		t.Errorf("a broken file without an entry: %+v, %v", r, err)
	}
}

// B6 of host-configuration.md.
func TestHostsInAnotherShapeAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		line int
		says string
	}{
		"bare key":             {"[host]\n\nx = \"y\"\n", 3, "a value"},
		"number":               {"[host]\nx = 1\n", 2, "a value"},
		"number at the top":    {"host.x = 1\n", 1, "a value"},
		"host is a number":     {"host = 5\n", 1, "a value"},
		"inline tables":        {"server = \"x\"\nhost = {\"https://a\" = {}}\n", 2, "an inline table"},
		"inline table":         {"[host]\n\"https://a\" = {capabilities = [\"pull\"]}\n", 2, "an inline table"},
		"dotted key":           {"host.\"https://a\".capabilities = [\"pull\"]\n", 1, "a dotted key"},
		"dotted key in host":   {"[host]\n\"https://a\".capabilities = [\"pull\"]\n", 2, "a dotted key"},
		"array of hosts":       {"[[host]]\nx = 1\n", 1, "an array of tables"},
		"array":                {"[[host.\"https://a\"]]\n", 1, "an array of tables"},
		"address not quoted":   {"[host.a.example]\n", 1, "a table inside a host's table"},
		"second of two":        {theirs + "[[host.\"https://a\"]]\n", 3, "an array of tables"},
		"byte order mark":      {"\xef\xbb\xbf" + theirs, 1, "byte order mark"},
		"not valid":            {"server = \"x\"\n[host.\n", 2, "not valid TOML"},
		"repeated":             {theirs + theirs, 3, "not valid TOML"},
		"capability":           {"[host.\"https://a\"]\ncapabilities = [\"fetch\"]\n", 2, `has "fetch", which containerd does not know`},
		"capabilities":         {"[host.\"https://a\"]\ncapabilities = \"pull\"\n", 2, "is no list of strings"},
		"ca":                   {"\nca = 5\n" + theirs, 2, "ca is neither a string nor a list"},
		"client":               {theirs + "client = [[\"a\"]]\n", 3, "client is no string"},
		"skip_verify":          {theirs + "skip_verify = \"yes\"\n", 3, "skip_verify is neither true nor false"},
		"header":               {theirs + "header = 5\n", 3, "header is no table"},
		"header's value":       {theirs + "header.x = 5\n", 3, `"x" is neither`},
		"dial_timeout":         {theirs + "dial_timeout = \"soon\"\n", 3, "dial_timeout is no duration"},
		"server":               {"server = 5\n" + theirs, 1, "server is no string"},
		"server no URL":        {"server = \"https://a:b:c\"\n" + theirs, 1, "server is no URL"},
		"host no URL":          {"[host.\"https://a:b:c\"]\n", 1, "is no URL"},
		"host empty":           {"[host.\"\"]\n", 1, "is no URL"},
		"sidemirror elsewhere": {theirs + "\n[host.\"http://LOCALHOST:305/\"]\n", 4, "has sidemirror's address"},
	} {
		out, err := Hosts{URL: ourURL, Registry: "r.example", Library: library23}.Add("f", []byte(test.text))
		refused(t, name, out, err, test.line, test.says)
	}
}

func TestWhatOneVersionOfContainerdRefusesIsRefusedForIt(t *testing.T) {
	old, now := Version{1, 7}, Version{2, 4}
	for name, test := range map[string]struct {
		h       Hosts
		text    string
		version Version
		says    string // empty if accepted
	}{
		"referrers, 1.7":                     {Hosts{}, "[host.\"https://a\"]\ncapabilities = [\"referrers\"]\n", old, `before 2.2`},
		"referrers, 2.4":                     {Hosts{}, "[host.\"https://a\"]\ncapabilities = [\"referrers\"]\n", now, ""},
		"IPv6 host, 1.7":                     {Hosts{}, "[host.\"http://[::1]:5000\"]\n", old, "IPv6 address"},
		"IPv6 host, 2.4":                     {Hosts{}, "[host.\"http://[::1]:5000\"]\n", now, ""},
		"IPv6 mirror, 1.7":                   {Hosts{Mirrors: []Mirror{{URL: "http://[fd00::1]:5000"}}}, "", old, "IPv6 address"},
		"IPv6 mirror, 2.4":                   {Hosts{Mirrors: []Mirror{{URL: "http://[fd00::1]:5000"}}}, "", now, ""},
		"IPv6 sidemirror, 2.4":               {Hosts{URL: "http://[::1]:305"}, "", now, "IPv6 address"},
		"server alone, 1.7":                  {Hosts{}, "server = \"https://docker.io\"\n", old, "server would take effect"},
		"server alone, 2.4":                  {Hosts{}, "server = \"https://docker.io\"\n", now, ""},
		"server alone, unknown":              {Hosts{}, "server = \"https://docker.io\"\n", Version{}, "server would take effect"},
		"registry's server, 1.7":             {Hosts{}, "server = \"https://Registry-1.docker.io/v2/\"\n", old, ""},
		"certificate alone, 1.7":             {Hosts{}, "ca = \"x\"\n", old, "ca would take effect"},
		"header alone, 1.7":                  {Hosts{}, "[header]\nx = \"y\"\n", old, "header would take effect"},
		"comment alone, 1.7":                 {Hosts{}, "# x\n", old, ""},
		"certificate next to a comment, 1.7": {Hosts{CA: []string{"ca.crt"}}, "# x\n", old, "uses the certificates next to it"},
		"certificate next to a comment, 2.4": {Hosts{CA: []string{"ca.crt"}}, "# x\n", now, ""},
		"certificate next to a host, 1.7":    {Hosts{Clients: [][]string{{"a.cert"}}}, theirs, old, ""},
		"server with a host, 1.7":            {Hosts{}, "server = \"https://docker.io\"\n" + theirs, old, ""},
		"odd dial_timeout, 1.7":              {Hosts{}, theirs + "dial_timeout = \"soon\"\n", old, ""},
		"unknown keys, 1.7":                  {Hosts{}, theirs + "x = 1\n[y]\n", old, ""},
		"[host] without keys, 1.7":           {Hosts{}, "[host]\n" + theirs, old, ""},
		"quoted otherwise, 1.7":              {Hosts{}, "[ \"host\" . 'https://a' ] # x\n", old, ""},
		"header before the host":             {Hosts{}, "[host.\"https://a\".header]\nx = \"y\"\n[host.\"https://a\"]\n", now, ""},
		"numbers as names of hosts":          {Hosts{}, "[host.1]\n[host.2]\n", now, ""},
	} {
		h := test.h
		if h.URL == "" {
			h.URL = ourURL
		}
		h.Registry, h.Library = "docker.io", test.version
		out, err := h.Add("f", []byte(test.text))
		if test.says == "" {
			if err != nil || !h.Settled("f", out) {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			continue
		}
		refused(t, name, out, err, -1, test.says)
	}
}

// refused wants a whole problem about a line; any line if it is negative.
func refused(t *testing.T, name string, out []byte, err error, line int, says string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s is not refused:\n%s", name, out)
		return
	}
	wantProblem(t, err)
	if p := problemIn(err); line >= 0 && p.Line != line || !strings.Contains(p.Error(), says) {
		t.Errorf("%s: got %q, want line %d and %q", name, p.Error(), line, says)
	}
}
