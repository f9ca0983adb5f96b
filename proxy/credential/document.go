package credential

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// tokenUser is the username that stands for "the secret is an identity token" in
// docker's credential protocol, and in files written from it.
const tokenUser = "<token>"

// entry is one login of a document, or the reason why it is of no use.
type entry struct {
	registry, namespace string
	spelled             string // the key as the document has it
	credential          Credential
	err                 error
}

// login is one value of "auths". See docker's cli/config/types.AuthConfig.
type login struct {
	Auth          Secret `json:"auth"`
	Username      string `json:"username"`
	Password      Secret `json:"password"`
	IdentityToken Secret `json:"identitytoken"`
	RegistryToken Secret `json:"registrytoken"`
}

// parseDocument reads docker's config.json and containers' auth.json: {"auths": {KEY: {...}}}, and
// ignores everything else in them. An entry without anything in it says that a credential helper
// has the login, which counts as none here. An entry with a problem is returned with its error and
// does not affect the others. The entries come longest namespace first, in an order that is the
// same for the same document.
func parseDocument(kind string, data []byte) ([]entry, error) {
	var document struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, notJSON(data, err)
	}
	var entries []entry
	for key, value := range document.Auths {
		registry, namespace, err := ParseKey(key)
		if err != nil {
			continue
		}
		e := entry{registry: registry, namespace: namespace, spelled: key}
		e.credential, e.err = parseLogin(value)
		if e.err == nil && e.credential.IsZero() {
			continue
		}
		if e.err == nil {
			e.credential.Generation = generation(kind, joinKey(registry, namespace), e.credential)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(len(b.namespace)-len(a.namespace), strings.Compare(a.rank(), b.rank()), strings.Compare(a.spelled, b.spelled))
	})
	return entries, nil
}

// rank orders spellings of the same key: docker's for the Hub, then the plain one,
// then the others.
func (e entry) rank() string {
	switch e.spelled {
	case oci.DockerHubLogin:
		return "0"
	case joinKey(e.registry, e.namespace):
		return "1"
	}
	return "2"
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
		offset = wrongType.Offset
		if wrongType.Field == "" || wrongType.Field == "auths" {
			return fmt.Errorf(`line %d is not {"auths": {…}} as docker login writes it`, line(data, offset))
		}
	}
	return fmt.Errorf("line %d is not JSON", line(data, offset))
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}

// parseLogin follows docker: "auth" beats "username" and "password". Its errors quote nothing.
func parseLogin(value json.RawMessage) (Credential, error) {
	var l login
	if err := json.Unmarshal(value, &l); err != nil {
		return Credential{}, errors.New("the entry is not an object of strings")
	}
	c := Credential{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken}
	if !l.Auth.IsZero() {
		username, password, err := decodeAuth(l.Auth)
		if err != nil {
			return Credential{}, err
		}
		c.Username, c.Password = username, password
	}
	if c.Username == tokenUser {
		if c.IdentityToken.IsZero() {
			c.IdentityToken = c.Password
		}
		c.Username, c.Password = "", Secret{}
	}
	switch {
	case c.IsZero() && !l.RegistryToken.IsZero():
		// Docker's API takes one for a single request; nothing renews it in a file.
		return Credential{}, errors.New(`"registrytoken" alone is not supported: log in with a password or an identity token`)
	case c.Username == "" && c.IdentityToken.IsZero() && !c.Password.IsZero():
		return Credential{}, errors.New("there is a password and no username")
	case strings.ContainsFunc(c.Username, isControl) || strings.ContainsFunc(c.Password.Reveal(), isControl):
		return Credential{}, errors.New("the username or password has control characters, which HTTP does not carry")
	}
	return c, nil
}

// decodeAuth reads base64("user:password"); the password may have colons, and the
// trailing zero bytes that some versions of docker left there.
func decodeAuth(auth Secret) (username string, password Secret, err error) {
	encoded := strings.TrimRight(strings.TrimSpace(auth.Reveal()), "=")
	decoded, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return "", Secret{}, errors.New(`"auth" is not base64`)
	}
	username, text, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return "", Secret{}, errors.New(`"auth" is not base64 of USER:PASSWORD`)
	}
	return username, NewSecret(strings.Trim(text, "\x00")), nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// find returns the login for repository in registry, or the zero one.
func find(entries []entry, registry, repository string) (Credential, error) {
	registry = oci.CanonicalRegistry(registry)
	for _, e := range entries {
		if e.registry != registry || !within(repository, e.namespace) {
			continue
		}
		if e.err != nil {
			return Credential{}, fmt.Errorf("the login for %s: %w", joinKey(e.registry, e.namespace), e.err)
		}
		return e.credential, nil
	}
	return Credential{}, nil
}
