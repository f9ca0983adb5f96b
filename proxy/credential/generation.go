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

// generation names the material of c, which is stored under key in a source of that kind.
func generation(kind, key string, c Credential) string {
	mac := hmac.New(sha256.New, generationKey)
	for _, part := range []string{kind, key, c.Username, c.Password.Reveal(), c.IdentityToken.Reveal()} {
		// With its length, so that no two lists of parts read the same.
		_ = binary.Write(mac, binary.BigEndian, uint64(len(part)))
		mac.Write([]byte(part))
	}
	return kind + ":" + hex.EncodeToString(mac.Sum(nil)[:8])
}
