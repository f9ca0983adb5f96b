package credential

import "github.com/sidemirror/sidemirror/internal/secret"

// Secret is a password or a token, which no output shows. See [secret.Secret].
type Secret = secret.Secret

// NewSecret wraps text.
func NewSecret(text string) Secret { return secret.New(text) }
