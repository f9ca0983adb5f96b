package credential

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// generationKey is made anew for each process, so that a generation in a log cannot be tried
// against guessed passwords.
var generationKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // crypto/rand ends the process rather than fail
	return key
}()

// Name returns c with its Generation: c came from a source of that kind, which has it under key.
func Name(kind, key string, c Credential) Credential {
	if !c.IsZero() {
		c.Generation = generation(kind, key, c, "")
	}
	return c
}

// generation names the material of c, which is stored under key in a source of that kind. accepted
// is when a registry last accepted it, if that is known: material that was accepted after it had
// been refused is a new generation, for which nothing is held back.
func generation(kind, key string, c Credential, accepted string) string {
	mac := hmac.New(sha256.New, generationKey)
	for _, part := range []string{kind, key, c.Username, c.Password.Reveal(), c.IdentityToken.Reveal(), accepted} {
		// With its length, so that no two lists of parts read the same.
		_ = binary.Write(mac, binary.BigEndian, uint64(len(part)))
		mac.Write([]byte(part))
	}
	return kind + ":" + hex.EncodeToString(mac.Sum(nil)[:8])
}
