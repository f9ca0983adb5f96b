package engine

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// Adopted is how an engine reaches a registry, by its own files, so that sidemirror can reach it in
// the same way.
type Adopted struct {
	// Registry is the registry's name as in references.
	Registry string `json:"registry"`

	// From is the file or the folder that says so.
	From string `json:"from"`

	// CA are files of authorities that are trusted in addition to the system's.
	CA []string `json:"ca,omitempty"`

	// Clients are the client certificates.
	Clients []KeyPair `json:"clients,omitempty"`

	// SkipVerify says that the registry's certificate is not verified, PlainHTTP that the registry has
	// none.
	SkipVerify bool `json:"skip_verify,omitempty"`
	PlainHTTP  bool `json:"plain_http,omitempty"`

	// Contents are what these files contain.
	Contents map[string]secret.Secret `json:"-"`
}

// KeyPair names the files of a certificate and its key, which may be one file.
type KeyPair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// MergeAdopted returns one entry for each registry, in their order. If two say different things about
// one registry, it is reached with the certificates of both, and verified unless both say otherwise;
// [LeaveUnverified] has looked at the engines that say nothing. Of two files with the same contents one
// is enough.
func MergeAdopted(list []Adopted) []Adopted {
	var merged []Adopted
	for _, a := range list {
		i := slices.IndexFunc(merged, func(m Adopted) bool { return m.Registry == a.Registry })
		if i < 0 {
			a.CA, a.Clients = slices.Clone(a.CA), slices.Clone(a.Clients)
			a.Contents = withContents(nil, a.Contents)
			merged = append(merged, a)
			continue
		}
		m := &merged[i]
		same := func(one, other string) bool {
			return one == other || m.Contents[one].Equal(a.Contents[other]) && !a.Contents[other].IsZero()
		}
		for _, ca := range a.CA {
			if !slices.ContainsFunc(m.CA, func(known string) bool { return same(known, ca) }) {
				m.CA = append(m.CA, ca)
			}
		}
		for _, pair := range a.Clients {
			if !slices.ContainsFunc(m.Clients, func(known KeyPair) bool { return same(known.Cert, pair.Cert) && same(known.Key, pair.Key) }) {
				m.Clients = append(m.Clients, pair)
			}
		}
		if !slices.Contains(strings.Split(m.From, ", "), a.From) {
			m.From += ", " + a.From
		}
		m.SkipVerify, m.PlainHTTP = m.SkipVerify && a.SkipVerify, m.PlainHTTP && a.PlainHTTP
		m.Contents = withContents(m.Contents, a.Contents)
	}
	slices.SortStableFunc(merged, func(a, b Adopted) int { return cmp.Compare(a.Registry, b.Registry) })
	return merged
}

func withContents(list, more map[string]secret.Secret) map[string]secret.Secret {
	if list == nil {
		list = make(map[string]secret.Secret, len(more))
	}
	for name, data := range more {
		list[name] = data
	}
	return list
}
