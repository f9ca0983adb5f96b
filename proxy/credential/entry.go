package credential

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// entry is one login of a document, or the reason why it is of no use. An entry without either
// says that there is no login for its key.
type entry struct {
	fileKey
	spelled    string // the key as the document has it
	credential Credential
	err        error
}

func (e entry) empty() bool { return e.err == nil && e.credential.IsZero() }

// login is one value of "auths". See docker's cli/config/types.AuthConfig.
type login struct {
	Auth          Secret `json:"auth"`
	Username      string `json:"username"`
	Password      Secret `json:"password"`
	IdentityToken Secret `json:"identitytoken"`
	RegistryToken Secret `json:"registrytoken"`
	// Accepted is sidemirror's own: when the registry last accepted the login that is stored.
	Accepted string `json:"accepted"`
	// Problem is sidemirror's own: why the login cannot be read, see [Store.PutProblem].
	Problem string `json:"problem"`
}

// newEntry returns the entry for a key of a document. ok is false if the key names no registry.
func newEntry(kind, key string, value json.RawMessage) (e entry, ok bool) {
	k, err := parseFileKey(key)
	if err != nil {
		return entry{}, false
	}
	e = entry{fileKey: k, spelled: key}
	var accepted string
	e.credential, accepted, e.err = parseLogin(kind, value)
	if e.err == nil && !e.credential.IsZero() {
		e.credential.Generation = generation(kind, joinKey(e.registry, e.namespace), e.credential, accepted)
	}
	return e, true
}

// parseLogin follows Docker: "auth" beats "username" and "password". Its errors quote nothing but a
// problem that sidemirror stored itself.
func parseLogin(kind string, value json.RawMessage) (c Credential, accepted string, err error) {
	var l login
	if err := json.Unmarshal(value, &l); err != nil {
		return Credential{}, "", errors.New("the entry is not an object of strings")
	}
	if l.Problem != "" && kind == storeKind {
		return Credential{}, "", errors.New(l.Problem)
	}
	c = Credential{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken}
	if !l.Auth.IsZero() {
		c.Username, c.Password, err = decodeAuth(l.Auth)
		if err != nil {
			return Credential{}, "", err
		}
	}
	if c.Username == IdentityUser && !c.IdentityToken.IsZero() {
		c.Username, c.Password = "", Secret{}
	}
	if c.IsZero() && !l.RegistryToken.IsZero() {
		// Docker's API takes one for a single request; nothing renews it in a file.
		return Credential{}, "", errors.New(`"registrytoken" alone is not supported: log in with a password or an identity token`)
	}
	if c.Username == "" && c.IdentityToken.IsZero() && !c.Password.IsZero() {
		return Credential{}, "", errors.New("there is a password and no username")
	}
	if strings.ContainsFunc(c.Username, isControl) {
		return Credential{}, "", errors.New("the username has control characters")
	}
	return c, l.Accepted, nil
}

// decodeAuth reads base64("user:password"). The password may have colons and line breaks, as a
// service account's key file does, and the trailing zero bytes that some versions of docker left.
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

// Check returns why c cannot be stored as a login, or nil: a colon in the username, or characters
// that would not come back as they were.
func Check(c Credential) error {
	_, err := encodeLogin(c, "")
	return err
}

// encodeLogin is the inverse of parseLogin, and refuses what would not come back as it was.
func encodeLogin(c Credential, accepted string) (json.RawMessage, error) {
	if c.IsZero() {
		return nil, errors.New("there is neither a username nor a secret")
	}
	if strings.Contains(c.Username, ":") {
		return nil, errors.New("the username has a colon, which ends it when it is sent to a registry")
	}
	fields := map[string]string{}
	if c.Username != "" || !c.Password.IsZero() {
		fields["auth"] = base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal()))
	}
	if !c.IdentityToken.IsZero() {
		fields["identitytoken"] = c.IdentityToken.Reveal()
	}
	if accepted != "" {
		fields["accepted"] = accepted
	}
	value, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	back, _, err := parseLogin(storeKind, value)
	if err != nil {
		return nil, err
	}
	if back.Username != c.Username || !back.Password.Equal(c.Password) || !back.IdentityToken.Equal(c.IdentityToken) {
		return nil, errors.New("the username or a secret has characters that a login cannot have: zero bytes, or text that is not UTF-8")
	}
	return value, nil
}
