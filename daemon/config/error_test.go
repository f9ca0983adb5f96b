package config

import (
	"strings"
	"testing"
)

func TestFaultNamesPlaceTextAndHint(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, file, text, hint string }{
		{"misspelt key", "lisen = []", `1:1: unknown key "lisen"`, `did you mean "listen"?`},
		{"misspelt key in a table", "[log]\n  levl = 'x'", `2:3: unknown key "levl"`, `did you mean "level"?`},
		{"misspelt table", "[enigne.docker]\nenabled = true", `1:2: unknown key "enigne"`, `did you mean "engine"?`},
		{"misspelt registry key", "[registry.\"a.b\"]\nupstream = []", `2:1: unknown key "upstream"`, `did you mean "upstreams"?`},
		{"key in the wrong table", "level = 'debug'", `1:1: unknown key "level"`, "it belongs in [log]"},
		{"key of another program", "[storage]\ndir = '/x'", `1:2: unknown key "storage"`, "the keys here are listen, shutdown_timeout,"},
		{"key in a value", "listen.x = 1", `1:1: unknown key "x"`, "listen is not a table"},
		{"quoted dots", `"log.level" = "debug"`, `1:1: unknown key "log.level"`, ""},
		{"syntax", "listen = [\"127.0.0.1:305\"\nx", "2:1:", ""},
		{"key of the top in a table", "[log]\nlevel = 'info'\nlisten = ['127.0.0.1:1']", `3:1: unknown key "listen"`, "it belongs in the lines before the first [table]"},
		{"key twice", "listen = ['127.0.0.1:1']\nlisten = ['127.0.0.1:2']", "2:1: listen is set twice; the first time is on line 1", "remove one"},
		{"key twice in a table", "[log]\nlevel = 'info'\n\nlevel = 'warn'", "4:1: log.level is set twice; the first time is on line 2", "remove one"},
		{"key twice in an inline table", "log = { level = 'info', level = 'warn' }", "1:", ""},
		{"table twice", "[log]\nlevel = 'info'\n[cache]\n[log]\nformat = 'text'", "4:2: the table [log] is there twice; the first is on line 1", "move these keys below line 1, and remove this line"},
		{"table twice, spelt in two ways", "[registry.\"a.b\"]\n[ registry . 'a.b' ]", `2:3: the table [registry."a.b"] is there twice; the first is on line 1`, "move these keys below line 1"},
		{"inner table twice", "[engine.docker]\n[engine.containerd]\n[engine.docker]", "3:2: the table [engine.docker] is there twice; the first is on line 1", ""},
		{"table after its dotted key", "log.level = 'info'\n[log]", "2:2: log is a table already, by the key on line 1", "in the same way"},
		{"table that is a key", "[log]\nlevel = 'info'\n[log.level]", "3:2:", ""},
		{"inline table and table", "log = { level = 'info' }\n[log]", "2:2: log is both a key and a table; the first is on line 1", "remove one"},
		{"string for a list", "listen = '127.0.0.1:305'", "1:10: listen: the value is a string", `write a list of addresses, as ["127.0.0.1:305"]`},
		{"number in a list", "listen = ['127.0.0.1:305',\n\t5]", "2:2: listen: the value is a whole number", "write a list of addresses"},
		{"list in a list", "listen = [['127.0.0.1:305']]", "the value is a list", ""},
		{"string for a boolean", "[engine.docker]\nenabled = 'yes'", "2:11: engine.docker.enabled: the value is a string", "write true or false"},
		{"number for a duration", "shutdown_timeout = 30", "the value is a whole number", `write a duration in quotes, as "30s" or "2m"`},
		{"duration without a unit", "shutdown_timeout = '30'", `"30" has no unit`, `write "30s" for seconds`},
		{"negative duration", "shutdown_timeout = '-1s'", `"-1s" is out of range`, "write a duration from 0s to 1h0m0s"},
		{"no time to connect", "[registry.'a.b']\ndial_timeout = '0s'", "the duration is 0s", "write more than 0s"},
		{"value for a table", "log = 'debug'", "log is a string and must be a table", "write [log]"},
		{"list of tables", "[[registry]]\nname = 'a.b'", "registry is a list of tables and must be a table", `write [registry."docker.io"]`},
		{"unquoted name", "[registry.docker.io]\nhosts = ['x.y']", "1:2: the name of a registry must be in quotes", `write [registry."docker.io"]`},
		{"unquoted long name", "[registry.registry.k8s.io]", "in quotes", `write [registry."registry.k8s.io"]`},
		{"unquoted dotted key", "registry.quay.io.hosts = ['x.y']", "in quotes", `write [registry."quay.io"]`},
		{"name without a dot", "[registry.docker]", `"docker" is not the name of a registry`, "with a dot or a port"},
		{"name that is a URL", "[registry.'https://ghcr.io']", `"https://ghcr.io" is a URL`, "the name that references begin with"},
		{"name with a path", "[registry.'ghcr.io/o']", "has a path", "only the name"},
		{"name in capitals", "[registry.'GHCR.io']", "has capitals", `write "ghcr.io"`},
		{"host of Docker Hub", "[registry.'registry-1.docker.io']", "is a host of Docker Hub", `write "docker.io"`},
		{"upstream without a scheme", "[registry.'a.b']\nupstreams = ['a.b:5000']", `2:14: registry."a.b".upstreams: "a.b:5000" has no scheme`, `write "https://a.b:5000"`},
		{"upstream of another scheme", "[registry.'a.b']\nupstreams = ['ftp://a.b']", "not an http or https URL", "https://"},
		{"upstream without a host", "[registry.'a.b']\nupstreams = ['https:///x']", "has no valid host", "https://"},
		{"port of an upstream", "[registry.'a.b']\nupstreams = ['https://a.b:70000']", "has no valid host", "https://"},
		{"query of an upstream", "[registry.'a.b']\nupstreams = ['https://a.b/?sig=x']", `"https://a.b/?…" has a query`, "remove"},
		{"fragment of an upstream", "[registry.'a.b']\nupstreams = ['https://a.b/#x']", "has a fragment", "remove"},
		{"no upstream", "[registry.'a.b']\nupstreams = []", "the list is empty", `remove the key to use "https://a.b"`},
		{"upstream twice", "[registry.'a.b']\nupstreams = ['https://a.b', 'https://a.b']", "occurs twice", "remove one"},
		{"realm with a path", "[registry.'a.b']\nrealms = ['https://a.b/token']", "a realm is an origin", `write "https://a.b"`},
		{"wildcard with upstreams", "[registry.'*']\nupstreams = ['https://a.b']", `2:1: registry."*".upstreams: "*" stands for`, "remove the key"},
		{"wildcard with hosts", "[registry.'*']\nhosts = ['m.lan']", `registry."*".hosts: a host name stands for one registry`, "remove the key"},
		{"one host, two registries", "[registry.'a.b']\nhosts = ['m.lan']\n[registry.'c.d']\nhosts = ['n.lan', 'm.lan']", `4:19: registry."c.d".hosts: "m.lan" already stands for a.b`, "remove it from one"},
		{"host with a port", "[registry.'a.b']\nhosts = ['m.lan:305']", "has a port", `write "m.lan"`},
		{"host that is a URL", "[registry.'a.b']\nhosts = ['http://m.lan']", "is a URL", `write "m.lan"`},
		{"host that is an address", "[registry.'a.b']\nhosts = ['10.0.0.1']", "is an address", "write a host name"},
		{"host that is this host", "[registry.'a.b']\nhosts = ['localhost']", "always means sidemirror itself", "write a name"},
		{"certificate without key", "[registry.'a.b']\ncert = '/x'", "the client certificate has no key", "add key"},
		{"key without certificate", "[registry.'a.b']\nkey = '/x'", "the key has no client certificate", "add cert"},
		{"relative path", "[credentials]\nfiles = ['config.json']", "relative path", "write an absolute path"},
		{"empty path", "[credentials]\nstore = ''", "the path is empty", "remove the key"},
		{"listen without an address", "listen = [':305']", "has no address", `write "127.0.0.1:305" for this host only`},
		{"listen without a port", "listen = ['::1']", "has no port", `write "[::1]:305"`},
		{"listen on a name", "listen = ['localhost:305']", "has a name", `write "127.0.0.1:305", "[::1]:305" or both`},
		{"listen on port 0", "listen = ['127.0.0.1:0']", "port 0", "from 1 to 65535"},
		{"listen on nothing", "listen = []", "listen: the list is empty", "remove the key"},
		{"listen twice", "listen = ['127.0.0.1:1', '127.0.0.1:1']", "occurs twice", "remove one"},
		{"circle", "listen = ['127.0.0.1:5000']\n[registry.'a.b']\nupstreams = ['http://localhost:5000']", "requests would go round in a circle", "write the URL of the registry"},
		{"circle through all addresses", "listen = ['0.0.0.0:443']\n[registry.'a.b']\nupstreams = ['https://127.0.0.1']", "requests would go round in a circle", ""},
		{"size without a unit", "[cache]\nmax_size = '20'", `2:12: cache.max_size: "20" has no unit`, `write "20GiB"`},
		{"size with half a unit", "[cache]\nmax_size = '20g'", `"20g" has an unknown unit`, `write "20GiB" or "20GB"`},
		{"size as a number", "[cache]\nmax_size = 20", "the value is a whole number", `write a size in quotes, as "20GiB"`},
		{"no size", "[cache]\nmax_size = '0B'", "the size is 0", `write dir = ""`},
		{"size beyond all disks", "[cache]\nmax_size = '20000000TiB'", "out of range", "write at most"},
		{"negative size", "[cache]\nmax_size = '-1GiB'", "is not a size", "a number and a unit"},
		{"whole disk free", "[cache]\nmin_free = '100%'", "is not a part of a disk", "write 0% to 99%"},
		{"free without a unit", "[cache]\nmin_free = '10'", `2:12: cache.min_free: "10" has no unit`, `or a part of the disk, as "10%"`},
		{"relative cache", "[cache]\ndir = 'cache'", "relative path", "absolute"},
		{"age in days", "[cache]\nmax_stale = '7d'", `"7d" has no unit that is known here`, `write "168h"`},
		{"negative age", "[cache]\ntag_ttl = '-1s'", "out of range", "write a duration from 0s"},
		{"no time to ask", "[cache]\nfreshness_timeout = '0s'", "the duration is 0s", "write more than 0s"},
		{"level", "[log]\nlevel = 'verbose'", `"verbose" is not a choice`, `write one of "error", "warn", "info", "debug", "trace"`},
		{"user id", "[trust]\nuids = [-1]", "is not a user id", "from 0 to 4294967294"},
		{"unit without type", "[trust]\nunits = [\"docker\"]", `"docker" has no type`, `write "docker.service"`},
		{"no unit", "[trust]\nunits = [\"a b.service\"]", `"a b.service" is not the name of a unit`, "ci.service"},
		{"group that ends with a slash", "[trust]\nunits = [\"/system.slice/\"]", "is not the path of a control group", "/system.slice/ci.service"},
		{"every network", "[guests]\nnetworks = ['*']", `2:13: guests.networks: "*" stands for every network`, "the names of bridges"},
		{"loopback network", "[guests]\nnetworks = ['lo']", "is the loopback interface", "the names of bridges"},
		{"address of a network", "[guests]\nnetworks = ['172.17.0.0/16']", "is not the name of a network interface", "docker0"},
		{"port of guests", "[guests]\nport = 70000", `"70000" is not a port`, "from 1 to 65535"},
		{"port 0 of guests", "[guests]\nport = 0", `"0" is not a port`, "from 1 to 65535"},
		{"login of a registry without a table", "[guests]\nlogins = ['docker.io', 'a.b']", `2:24: guests.logins: "a.b" is not served to guests`, `add [registry."a.b"]`},
		{"login of every registry", "[guests]\nlogins = ['*']", `"*" stands for every registry`, "the names of registries"},
		{"user id of no user", "[trust]\nuids = [4294967295]", "is not a user id", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := writeConfig(t, tt.file)
			_, err := Load(path, nil)
			e, ok := err.(*Error) //nolint:errorlint // Load wraps no Error
			if !ok || e.ExitCode() != 2 {
				t.Fatalf("got %v", err)
			}
			p := e.Problems()[0]
			if text := err.Error(); !strings.Contains(text, path+":") || !strings.Contains(text, tt.text) || !strings.Contains(p.Hint, tt.hint) {
				t.Errorf("got\n%v\nwant %q and the hint %q", err, tt.text, tt.hint)
			}
			if p.Path != path || p.Line == 0 || p.Hint != "" && !strings.Contains(err.Error(), "\nhint: "+p.Hint) {
				t.Errorf("the problem is %+v in\n%v", p, err)
			}
			if brief := Brief(err); strings.Contains(brief, "\n") || !strings.Contains(brief, p.Text) {
				t.Errorf("in short: %s", brief)
			}
		})
	}
}

func TestFaultOfTheFileShowsTheLineAndACaret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"lisen = []":                       "\n   1 | lisen = …\n     | ^\nhint: ",
		"[log]\n  levl = 'x'":              "\n   2 |   levl = …\n     |   ^\nhint: ",
		"listen = '127.0.0.1:305'":         "\n   1 | listen = '127.0.0.1:305'\n     |          ^\nhint: ",
		"listen = ['127.0.0.1:305',\n\t5]": "\n   2 | \t5]\n     | \t^\nhint: ",
	} {
		if _, err := Load(writeConfig(t, text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives\n%v\nwant\n%s", text, err, want)
		}
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, text := range []string{
		"[registry.'a.b']\nupstreams = ['https://user:hunter2@a.b']",
		"[registry.'a.b']\nupstreams = ['https://user:hunter2/x@a.b']",
		"[registry.'a.b']\nupstreams = ['ftp://hunter2@a.b']",
		"[registry.'a.b']\nupstreams = ['https://user:hunter2@a.b', 5]",
		"[registry.'a.b']\nrealms = ['https://user:hunter2@a.b']",
		"[registry.'a.b']\nupstreams = [\"https://user:hun\\qter2hunter2@a.b\"]",
		"[registry.'a.b']\npassword = 'hunter2'",
		"password = hunter2",
		"[registry.'https://user:hunter2@a.b']\n",
		"[registry.'a.b']\nhosts = ['https://user:hunter2@a.b']",
	} {
		_, err := Load(writeConfig(t, text), nil)
		if err == nil || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q gave\n%v", text, err)
		}
	}
	_, err := Load(writeConfig(t, ""), []string{"SIDEMIRROR_REGISTRY_DOCKER_IO_UPSTREAMS=https://user:hunter2@a.b", "SIDEMIRROR_PASSWORD=hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "SIDEMIRROR_PASSWORD: unknown variable") {
		t.Errorf("the environment gave\n%v", err)
	}
}

// What people write who know another program, or another form.
func TestHintSaysWhatWasProbablyMeant(t *testing.T) {
	t.Parallel()
	const registry = "[registry.'a.b']\n"
	for _, tt := range []struct{ name, file, hint string }{
		{"seconds in words", "shutdown_timeout = '30 Seconds'", `write "30s"`},
		{"minutes in letters", "shutdown_timeout = '2min'", `write "2m"`},
		{"weeks", "[cache]\nmax_stale = '2w'", `write "336h"`},
		{"no time", "shutdown_timeout = 'soon'", "write a number and a unit"},
		{"level of another program", "[log]\nlevel = 'warning'", `write "warn"`},
		{"choice in capitals", "[log]\nlevel = 'DEBUG'", `write "debug"`},
		{"word that is near to none", "[log]\nlevel = 'verbose'", `write one of "error"`},
		{"empty choice", "[log]\nlevel = ''", `write one of "error"`},
		{"port that does not exist", "listen = ['127.0.0.1:99999']", "write a port from 1 to 65535"},
		{"URL of a registry", "[registry.'https://ghcr.io/']", `as "ghcr.io"`},
		{"URL of Docker Hub's index", "[registry.'https://index.docker.io/v1/']", `as "docker.io"`},
		{"URL with a password", "[registry.'https://u:p@ghcr.io/']", `as "registry.example:5000"`},
		{"repository for a registry", "[registry.'ghcr.io/owner']", `write only the name of the registry: "ghcr.io"`},
		{"host in a URL that is an address", registry + "hosts = ['https://10.0.0.1/']", "write only its host name"},
		{"host in a URL with a port", registry + "hosts = ['https://m.lan:8443/x']", `write "m.lan"`},
		{"everyone", "[site]\nallow = ['all']", `"0.0.0.0/0" and "::/0"`},
		{"name for a network", "[site]\ntrusted_proxies = ['localhost']", `"127.0.0.1", "::1" or both`},
		{"bits", "[site]\nrate = '10Mbit'", `"1250KB"`},
		{"table of many registries", "[registries.'a.b']", `write [registry."NAME"]`},
		{"mirrors of Docker", "registry-mirrors = ['https://m.lan']", `[registry."docker.io"]`},
		{"user", registry + "username = 'ann'", `run "sidemirror login a.b"`},
		{"password", registry + "password = 'ann'", `run "sidemirror login a.b"`},
		{"without TLS", registry + "insecure = true", "begins with http://"},
		{"mirrors of containerd", registry + "endpoint = ['https://m.lan']", "write upstreams"},
		{"port", "port = 305", `write listen = ["127.0.0.1:305"]`},
		{"folder of the cache", "[cache]\npath = '/x'", `did you mean "dir"?`},
		{"name of the site", "[site]\ndomain = 'm.lan'", "write hosts"},
		{"bucket", "[cache.shared]\nbucket = 'layers'", "s3://BUCKET"},
		{"YAML", "listen: 127.0.0.1\ncache:\n  dir: /x\n", "must be TOML, not YAML"},
		{"list of YAML", "- a\n- b\n", "must be TOML, not YAML"},
		{"JSON", `{"listen": []}`, "must be TOML, not JSON"},
		{"byte order mark", "\xef\xbb\xbf[cache]\n", "without a byte order mark"},
		{"UTF-16", "\xff\xfe[\x00", "store the file as UTF-8"},
		{"Latin-1", "# \xe4\n", "store the file as UTF-8"},
		{"typographic quotes", "listen = [“127.0.0.1:305”]", "straight quotes"},
		{"text without quotes", "[cache]\ndir = /x", "write a text in quotes"},
		{"text without its end", "[cache]\ndir = \"/x\n", "end the text with a quote"},
		{"table without its end", "[cache\n", "write a table as [TABLE]"},
		{"sentence", "this is not TOML", "write KEY = VALUE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(writeConfig(t, tt.file), nil)
			e, ok := err.(*Error) //nolint:errorlint // Load wraps no Error
			if !ok || !strings.Contains(e.Problems()[0].Hint, tt.hint) {
				t.Errorf("got\n%v\nwant the hint %q", err, tt.hint)
			}
		})
	}
}

func TestRateMayBePerSecond(t *testing.T) {
	t.Parallel()
	c, err := Load(writeConfig(t, "[site]\nrate = '10MB/s'"), nil)
	if err != nil || c.Site.Rate != 10e6 {
		t.Errorf("got %v, %v", c, err)
	}
}
