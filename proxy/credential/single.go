package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// EncodeLogin returns a document with the login c for key alone, which a registry has just accepted.
// It is in the format of Docker's config.json.
func EncodeLogin(key string, c Credential) (Secret, error) {
	registry, namespace, err := ParseKey(key)
	if err != nil {
		return Secret{}, err
	}
	value, err := encodeLogin(c, time.Now().UTC().Format(time.RFC3339Nano))
	if err != nil {
		return Secret{}, err
	}
	text, err := json.Marshal(map[string]any{"auths": map[string]json.RawMessage{joinKey(registry, namespace): value}})
	return NewSecret(string(text)), err
}

// DecodeLogin returns the login for key from a document that EncodeLogin made. Its errors quote
// nothing of the document.
func DecodeLogin(key string, document Secret) (Credential, error) {
	doc, err := parseDocument(storeKind, []byte(document.Reveal()))
	if err != nil {
		return Credential{}, err
	}
	if len(doc.entries) != 1 || joinKey(doc.entries[0].registry, doc.entries[0].namespace) != key {
		return Credential{}, fmt.Errorf("it is not the login for %s alone", key)
	}
	c, err := doc.entries[0].login()
	if err == nil && c.IsZero() {
		err = errors.New("it has no login")
	}
	return c, err
}
