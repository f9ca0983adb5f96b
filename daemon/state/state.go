// Package state is what the running daemon lets "sidemirror status" know about itself: a small file
// in the folder that systemd makes for the service below /run.
//
// The status line that systemd shows has room for a few words, and every user can read it. This file
// has the details, and only root and the daemon's user can read it.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// File is where the service of the packages writes its state.
const File = "/run/sidemirror/" + name

const (
	name = "state.json"

	// maxSize bounds the file, for the writer and for the reader.
	maxSize = 64 << 10

	// maxText bounds the text of a problem and the path of a control group.
	maxText = 500
)

// State is what the daemon knows that others cannot find out. It has no secret.
type State struct {
	// Problems are what is wrong now.
	Problems []*problem.Problem `json:"problems,omitempty"`

	// Notes are what is worth knowing and not wrong.
	Notes []*problem.Problem `json:"notes,omitempty"`

	// Logins are those that registries have accepted since the configuration came into force.
	Logins []Login `json:"logins,omitempty"`

	// Guests are the addresses at which guests are served, as "172.17.0.1:305 (docker0)".
	Guests []string `json:"guests,omitempty"`

	// Site is the mirror on a domain of its own; nil if there is none.
	Site *Site `json:"site,omitempty"`

	// Outbound is the forward proxy through which registries are reached; nil if there is none.
	Outbound *Outbound `json:"outbound,omitempty"`

	// Refused are the callers that were not trusted lately, the last one first.
	Refused []Refused `json:"refused_callers,omitempty"`
}

// Outbound is a forward proxy. Its URLs have no login.
type Outbound struct {
	// HTTPProxy and HTTPSProxy are the proxies for http and https registries; "" for none.
	HTTPProxy  string `json:"http_proxy,omitempty"`
	HTTPSProxy string `json:"https_proxy,omitempty"`

	// NoProxy is what is reached without the proxy, in the form of the variable NO_PROXY.
	NoProxy string `json:"no_proxy,omitempty"`

	// From is where the proxy is set, for people.
	From string `json:"from"`
}

// Login is a login of the daemon's that a registry has accepted.
type Login struct {
	// Host is the upstream's host and port.
	Host string `json:"host"`

	// Source is where the login comes from: "store", "systemd", "file", "environment", "helper" or
	// "plugin".
	Source string `json:"source"`
}

// Site is the mirror on a domain of its own.
type Site struct {
	Names        []string      `json:"names"`        // its host names
	Addresses    []string      `json:"addresses"`    // that are served
	TLS          string        `json:"tls"`          // "acme", "files" or "off"
	Certificates []Certificate `json:"certificates"` // one for each name, unless TLS is off
}

// Certificate is the certificate of a name of the site.
type Certificate struct {
	Name     string    `json:"name"`
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"` // zero: there is none
	Problem  string    `json:"problem,omitempty"`
}

// Refused is a caller that was served without the daemon's logins, because it is not trusted.
type Refused struct {
	// UID is its user.
	UID uint32 `json:"uid"`

	// Group is its control group, as "/system.slice/ci.service"; "" if that is not known.
	Group string `json:"cgroup,omitempty"`

	// Container says that it is in a container. Those are never trusted.
	Container bool `json:"container,omitempty"`

	// UserTrusted says that trust.uids has its user, so that its unit is the reason.
	UserTrusted bool `json:"user_trusted,omitempty"`

	// Requests is how many it sent since the daemon was started.
	Requests int64 `json:"requests"`

	// Last is when it sent the last one.
	Last time.Time `json:"last"`
}

// Write replaces the file in dir, which is the first one of systemd's RUNTIME_DIRECTORY. It leaves
// out the callers that were not seen for longest, then logins, and then problems, if there are too
// many.
func Write(dir string, s State) error {
	data, err := s.encode()
	if err != nil {
		return fmt.Errorf("writing the state for status: %w", err)
	}
	folder, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("writing the state for status: %w", err)
	}
	defer folder.Close()
	if err := durable.Replace(folder, name, data, durable.Options{}); err != nil {
		return fmt.Errorf("writing the state for status: %w", err)
	}
	return nil
}

// encode returns s as JSON of at most maxSize bytes.
func (s State) encode() ([]byte, error) {
	s.Problems, s.Notes, s.Refused = shortened(s.Problems), shortened(s.Notes), slices.Clone(s.Refused)
	for i := range s.Refused {
		s.Refused[i].Group = clip(s.Refused[i].Group)
	}
	if s.Outbound != nil {
		short := *s.Outbound
		short.NoProxy, short.From = clip(short.NoProxy), clip(short.From)
		s.Outbound = &short
	}
	for {
		data, err := json.Marshal(s)
		if err != nil || len(data) <= maxSize {
			return data, err
		}
		switch {
		case len(s.Refused) > 0:
			s.Refused = s.Refused[:len(s.Refused)/2]
		case len(s.Logins) > 0:
			s.Logins = s.Logins[:len(s.Logins)/2]
		case len(s.Notes) > 0:
			s.Notes = s.Notes[:len(s.Notes)/2]
		default:
			s.Problems = s.Problems[:len(s.Problems)/2]
		}
	}
}

func shortened(list []*problem.Problem) []*problem.Problem {
	short := make([]*problem.Problem, 0, len(list))
	for _, p := range list {
		whole := *p
		whole.Path, whole.Line = "", 0
		short = append(short, &problem.Problem{Code: p.Code, Path: clip(p.Path), Line: p.Line, Text: clip(whole.Error()), Hint: clip(p.Hint)})
	}
	return short
}

// clip shortens text to maxText bytes.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText-len("…")], "") + "…"
}

// Read returns the state in a file. The error is [fs.ErrNotExist] if there is none, as when the
// daemon does not run. Only root, this user, or one of owners may have written it.
func Read(file string, owners ...uint32) (State, error) {
	s, err := read(file, owners)
	if err != nil {
		return State{}, fmt.Errorf("reading the daemon's state: %w", err)
	}
	return s, nil
}

func read(file string, owners []uint32) (s State, err error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return s, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return s, &fs.PathError{Op: "fstat", Path: file, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return s, fmt.Errorf("%s is not a file", file)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()) && !slices.Contains(owners, st.Uid):
		return s, fmt.Errorf("%s belongs to user %d", file, st.Uid)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return s, err
	case len(data) > maxSize:
		return s, fmt.Errorf("%s is longer than %d KiB", file, maxSize>>10)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("%s: %w", file, err)
	}
	if slices.Contains(s.Problems, nil) || slices.Contains(s.Notes, nil) {
		return State{}, errors.New(file + " has an empty problem")
	}
	return s, nil
}
