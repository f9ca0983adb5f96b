package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/spelling"
)

const (
	loginHint    = `the configuration has no passwords: run "sidemirror login`
	insecureHint = `write ca = "/path/to.pem" if the certificate is one of your own, and an upstream that begins with http:// if there is none`
	orderHint    = `write upstreams = ["https://mirror.example", "https://registry.example"], in the order in which they are asked`
	tableHint    = `write upstreams in [registry."docker.io"]`
	hostsHint    = `write hosts = ["docker.example.com"], with your own domain, in [registry."docker.io"]`
)

// otherWords are keys that other programs have, or that people expect, by the table that they were
// written in, with what to write here. "registry" stands for every [registry."NAME"].
var otherWords = map[string]map[string]string{
	"": {
		"registries": `write [registry."NAME"]`, "registry-mirrors": tableHint, "mirrors": tableHint, "mirror": tableHint, "upstreams": tableHint,
		"insecure-registries": insecureHint + `, in [registry."NAME"]`,
		"auths":               loginHint + ` NAME"`, "port": `write listen = ["127.0.0.1:305"]`, "domain": hostsHint, "tls": "it belongs in [site]",
	},
	"registry": {
		"username": "", "user": "", "password": "", "auth": "", "token": "", "login": "",
		"insecure": insecureHint, "skip_verify": insecureHint, "insecure_skip_verify": insecureHint, "tls_verify": insecureHint,
		"plain_http": insecureHint, "http": insecureHint, "tls": insecureHint,
		"mirrors": orderHint, "mirror": orderHint, "endpoint": orderHint, "endpoints": orderHint, "url": orderHint, "urls": orderHint,
		"remoteurl": orderHint, "server": orderHint,
		"ca_file": `did you mean "ca"?`, "cafile": `did you mean "ca"?`, "cert_file": `did you mean "cert"?`, "key_file": `did you mean "key"?`, "host": `did you mean "hosts"?`,
		"domain": `write hosts = ["docker.example.com"]`,
	},
	"cache": {
		"path": `did you mean "dir"?`, "directory": `did you mean "dir"?`, "folder": `did you mean "dir"?`, "size": `did you mean "max_size"?`, "limit": `did you mean "max_size"?`,
		"ttl": `did you mean "tag_ttl"?`, "enabled": `write dir = "" to store nothing`,
	},
	"cache.shared": {
		"bucket": bucketForm + " in url", "endpoint": bucketForm + " in url", "region": bucketForm + " in url", "prefix": bucketForm + " in url",
		"access_key": "write the keys into the file that credentials names", "secret_key": "write the keys into the file that credentials names",
	},
	"site": {
		"name": hostsHint, "names": hostsHint, "domain": hostsHint, "domains": hostsHint, "server_name": hostsHint,
		"email": `did you mean "acme_email"?`, "accept_terms": `did you mean "acme_accept_terms"?`, "port": `write listen = ["0.0.0.0:443"]`,
		"htpasswd": `did you mean "users"?`, "certificate": `did you mean "cert"?`,
	},
	"log": {"file": "the log goes to standard error, which systemd stores: journalctl -u sidemirror", "output": "the log goes to standard error, which systemd stores: journalctl -u sidemirror"},
}

// ofAnotherProgram returns what to write in the place of the unknown part of path at depth, if it is a
// word that people expect there; else "".
func ofAnotherProgram(path []string, depth int) string {
	table := strings.Join(path[:depth], ".")
	if depth == 2 && path[0] == "registry" {
		table = path[0]
	}
	hint, known := otherWords[table][strings.ToLower(path[depth])]
	if known && hint == "" { // a login
		return loginHint + " " + path[1] + `"`
	}
	return hint
}

// reportUnknown reports that the part of the path at depth is unknown there. The hint names the
// most similar name or, if none is similar, all.
func (l *loader) reportUnknown(s setting, depth int, known []string) {
	l.mark(s.path[:depth+1])
	if l.faults.full() {
		l.faults.more++
		return
	}
	var hint string
	if other := ofAnotherProgram(s.path, depth); other != "" {
		hint = other
	} else if near := spelling.Nearest(s.path[depth], known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if other := elsewhere(s.path[depth]); other != "" {
		hint = "it belongs in " + other
	} else if len(known) > 0 {
		hint = "the keys here are " + strings.Join(known, ", ")
	} else {
		hint = strings.Join(s.path[:depth], ".") + " is not a table"
	}
	l.faults.add(fault{at: origin{offset: s.offset}, text: "unknown key " + quote(s.path[depth]), hint: hint, secret: true})
}

// elsewhere returns the table that has a key called name, or "".
func elsewhere(name string) string {
	if slices.Contains(registryKeyNames(), name) {
		return `[registry."NAME"]`
	}
	for _, k := range keys {
		switch table, last, ok := cutLast(k.name); {
		case last != name:
		case ok:
			return "[" + table + "]"
		default:
			return "the lines before the first [table] of the file"
		}
	}
	return ""
}

func cutLast(dotted string) (table, last string, ok bool) {
	i := strings.LastIndexByte(dotted, '.')
	if i < 0 {
		return "", dotted, false
	}
	return dotted[:i], dotted[i+1:], true
}
