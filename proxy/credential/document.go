package credential

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// document is the content of a credential file.
type document struct {
	entries []entry           // in the order in which they are tried
	helpers map[string]string // "credHelpers": the helper for a registry; "" means the entries alone
	store   string            // "credsStore": the helper for every other registry
	remarks []error           // what is ignored, although a person may have meant something by it
}

// maxEntries bounds the entries of each kind in one document.
const maxEntries = 10_000

// parseDocument reads Docker's config.json, containers' auth.json, and the older .dockercfg, which
// has the entries without "auths" around them. It ignores everything that is not about logins. An
// entry with a problem is returned with its error and does not affect the others.
func parseDocument(kind string, data []byte) (*document, error) {
	var members map[string]json.RawMessage
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&members); err != nil {
		return nil, notJSON(data, err)
	}
	doc := &document{helpers: map[string]string{}}
	// Docker reads the first JSON value and ignores what follows it.
	end := int64(len(data)) - int64(len(bytes.TrimLeft(data[d.InputOffset():], " \t\r\n")))
	if end < int64(len(data)) {
		doc.remarks = append(doc.remarks, fmt.Errorf("the text from line %d on is ignored, since the JSON ends before it", line(data, end)))
	}
	auths, err := doc.logins(members, data)
	if err != nil {
		return nil, err
	}
	if len(auths) > maxEntries {
		return nil, fmt.Errorf("it has more than %d logins", maxEntries)
	}
	for key, value := range auths {
		if e, ok := newEntry(kind, key, value); ok {
			doc.entries = append(doc.entries, e)
		}
	}
	slices.SortFunc(doc.entries, compareEntries)
	return doc, nil
}

// logins returns the entries of a document, and reads which helpers it names.
func (d *document) logins(members map[string]json.RawMessage, data []byte) (map[string]json.RawMessage, error) {
	shape := fmt.Errorf("line %d is not {\"auths\": {…}} as docker login writes it", line(data, int64(max(0, bytes.Index(data, []byte(`"auths"`))))))
	var auths map[string]json.RawMessage
	if text, ok := members["auths"]; ok {
		if json.Unmarshal(text, &auths) != nil {
			return nil, shape
		}
	}
	var helpers map[string]string
	if text, ok := members["credHelpers"]; ok && json.Unmarshal(text, &helpers) != nil {
		return nil, errors.New(`"credHelpers" is not an object of strings`)
	}
	if text, ok := members["credsStore"]; ok && json.Unmarshal(text, &d.store) != nil {
		return nil, errors.New(`"credsStore" is not a string`)
	}
	if len(helpers) > maxEntries {
		return nil, fmt.Errorf("it has more than %d credential helpers", maxEntries)
	}
	for key, name := range helpers {
		if k, err := parseFileKey(key); err == nil && !k.wildcard && k.namespace == "" {
			d.helpers[k.registry] = name
		} else {
			d.remarks = append(d.remarks, errors.New(`a key of "credHelpers" is not a registry's name, and is ignored`))
		}
	}
	if auths == nil && helpers == nil && d.store == "" {
		auths = oldLogins(members)
	}
	return auths, nil
}

// oldLogins returns the members that are logins of a .dockercfg.
func oldLogins(members map[string]json.RawMessage) map[string]json.RawMessage {
	logins := map[string]json.RawMessage{}
	for key, value := range members {
		var has map[string]json.RawMessage
		if json.Unmarshal(value, &has) == nil && (has["auth"] != nil || has["username"] != nil) {
			logins[key] = value
		}
	}
	return logins
}

// compareEntries puts the entries in the order in which they are tried: the longest namespace
// first, names before wildcards, entries that have a login before empty ones of the same key, and
// wildcards in reverse order, as the kubelet tries them.
func compareEntries(a, b entry) int {
	order := cmp.Or(len(b.namespace)-len(a.namespace), cmp.Compare(number(a.wildcard), number(b.wildcard)))
	if order != 0 {
		return order
	}
	if a.wildcard {
		return strings.Compare(b.registry, a.registry)
	}
	return cmp.Or(strings.Compare(a.registry, b.registry), strings.Compare(a.namespace, b.namespace),
		cmp.Compare(number(a.empty()), number(b.empty())), strings.Compare(a.rank(), b.rank()), strings.Compare(a.spelled, b.spelled))
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rank orders spellings of the same key: Docker's for the Hub, then the plain one, then those with a
// scheme, and last those whose path counts for nothing.
func (e entry) rank() string {
	rest, hadScheme := cutScheme(e.spelled)
	_, path, _ := strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	switch {
	case e.spelled == oci.DockerHubLogin:
		return "0"
	case e.spelled == joinKey(e.registry, e.namespace):
		return "1"
	case hadScheme && path != "" && path != "v1" && path != "v2":
		return "3"
	}
	return "2"
}

// problems returns what is wrong with parts of the document.
func (d *document) problems(helpers Helpers) []error {
	problems := slices.Clone(d.remarks)
	for _, e := range d.entries {
		if e.err != nil {
			problems = append(problems, fmt.Errorf("the login for %s: %w", joinKey(e.registry, e.namespace), e.err))
		}
	}
	named := []string{d.store}
	for _, name := range d.helpers {
		named = append(named, name)
	}
	slices.Sort(named)
	for _, name := range slices.Compact(named) {
		if name == "" {
			continue
		}
		if err := usable(helpers, name); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// hasSecrets reports whether the document holds a login itself.
func (d *document) hasSecrets() bool {
	return slices.ContainsFunc(d.entries, func(e entry) bool { return !e.empty() })
}

// notJSON says where the problem is and quotes nothing, since it may be a secret. The errors of
// encoding/json do quote.
func notJSON(data []byte, err error) error {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	offset := int64(len(data))
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return errors.New(`it is empty: write {} there if there are no logins`)
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &wrongType):
		return fmt.Errorf(`line %d is not {"auths": {…}} as docker login writes it`, line(data, wrongType.Offset))
	}
	return fmt.Errorf("line %d is not JSON", line(data, offset))
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}
