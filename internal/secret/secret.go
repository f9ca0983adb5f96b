// Package secret provides the type of passwords, tokens and URLs that may have a password.
package secret

import (
	"crypto/subtle"
	"fmt"
)

const redacted = "[redacted]"

// Secret is a password or a token. However it is printed, formatted, logged or marshalled, it reads
// "[redacted]". Only Reveal returns the text, so that a search for Reveal finds every place where a
// secret can leave. Compare secrets with Equal; == says whether they are copies of one another.
type Secret struct {
	// A pointer, because fmt calls no Format method on what it reaches through an
	// unexported field, and prints the text of a string there but only the address
	// of a pointer.
	text *string
}

// New wraps text.
func New(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in a time that does not depend on where the two differ.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String is "[redacted]".
func (Secret) String() string { return redacted }

// GoString is "[redacted]".
func (Secret) GoString() string { return redacted }

// Format is "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText is "[redacted]"; JSON and TOML encoders use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON is "[redacted]" too: encoding/json prefers it to MarshalText.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// UnmarshalText takes the text, so that a decoder leaves no copy outside a Secret.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
