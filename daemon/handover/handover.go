// Package handover is what the watching service found on the host and hands over to the proxy: how
// the engines reach registries. The watching service is root and reads the engines' files; the proxy
// is another user, and cannot read all of them.
//
// They meet in a folder below /run: a file of JSON, and copies of the certificates and keys that it
// names. Only root may have written the file. A copy is named after its contents, so that a changed
// certificate and its key come into force together.
package handover

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// Folder is where the packages' services hand over. Its group is the proxy's.
const Folder = "/run/sidemirror-hosts"

const name = "handover.json"

// Path returns the file in a folder by which it is handed over.
func Path(folder string) string { return filepath.Join(folder, name) }

// Handover is what was found. Its zero value says that nothing was.
type Handover struct {
	// Registries say how the engines reach a registry, by its name as in references. A registry that
	// they reach in the usual way is not among them.
	Registries map[string]Registry

	// Proxy is how the engines reach the internet; nil if they do so directly.
	Proxy *Proxy
}

// Registry is how the engines reach one registry.
type Registry struct {
	// CA are files of certificate authorities that are trusted in addition to the system's.
	CA []string `json:"ca,omitempty"`

	// Client are the client certificates.
	Client []KeyPair `json:"client,omitempty"`

	// SkipVerify says that the registry's certificate is not verified.
	SkipVerify bool `json:"skip_verify,omitempty"`

	// PlainHTTP says that the registry is asked by plain HTTP.
	PlainHTTP bool `json:"plain_http,omitempty"`

	// From is the file or the folder that says so, for people.
	From string `json:"from"`
}

// KeyPair names the files of a certificate and its key, which may be one file.
type KeyPair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Proxy is the forward proxy that the engines use. The URLs may have a login.
type Proxy struct {
	HTTP, HTTPS secret.Secret

	// NoProxy lists what is reached without the proxy, in the form of the variable NO_PROXY.
	NoProxy string

	// From is the file that says so, for people.
	From string
}

const (
	// maxRegistries, maxFiles and maxText bound what is believed, each in number or bytes.
	maxRegistries = 512
	maxFiles      = 64
	maxText       = 16 << 10
)

// check refuses what no watching service writes. ok says whether a file may be named.
func (h Handover) check(ok func(file string) bool) error {
	if len(h.Registries) > maxRegistries {
		return fmt.Errorf("has more than %d registries", maxRegistries)
	}
	for host, r := range h.Registries {
		if !isHost(host) {
			return fmt.Errorf("%q is not the name of a registry", host)
		}
		if err := r.check(ok); err != nil {
			return fmt.Errorf("registry %s: %w", host, err)
		}
	}
	if p := h.Proxy; p != nil && max(len(p.HTTP.Reveal()), len(p.HTTPS.Reveal()), len(p.NoProxy), len(p.From)) > maxText {
		return fmt.Errorf("has a proxy setting of more than %d bytes", maxText)
	}
	return nil
}

func (r Registry) check(ok func(file string) bool) error {
	files := r.files()
	if len(files) > maxFiles {
		return fmt.Errorf("has more than %d files", maxFiles)
	}
	for _, file := range files {
		if !ok(file) {
			return fmt.Errorf("%q is not one of the files that are handed over", file)
		}
	}
	if len(r.From) > maxText {
		return fmt.Errorf("has an origin of more than %d bytes", maxText)
	}
	return nil
}

func (r Registry) files() []string {
	files := slices.Clone(r.CA)
	for _, pair := range r.Client {
		files = append(files, pair.Cert, pair.Key)
	}
	return files
}

// renamed returns r with the names of its files changed by name.
func (r Registry) renamed(name func(string) string) Registry {
	r.CA, r.Client = slices.Clone(r.CA), slices.Clone(r.Client)
	for i := range r.CA {
		r.CA[i] = name(r.CA[i])
	}
	for i := range r.Client {
		r.Client[i] = KeyPair{name(r.Client[i].Cert), name(r.Client[i].Key)}
	}
	return r
}

// isHost reports whether text can be a host with or without a port.
func isHost(text string) bool {
	ok := func(c rune) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '-' || c == ':' || c == '[' || c == ']' || c == '_'
	}
	for _, c := range text {
		if !ok(c) {
			return false
		}
	}
	return text != "" && len(text) <= 255
}
