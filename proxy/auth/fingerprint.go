package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

// Fingerprint returns a short name for an Authorization header. It tells two headers
// apart and reveals nothing of them. For no header it is empty.
func Fingerprint(authorization string) string {
	if authorization == "" {
		return ""
	}
	mac := hmac.New(sha256.New, fingerprintKey())
	mac.Write([]byte(authorization))
	return "bearer:" + hex.EncodeToString(mac.Sum(nil)[:8])
}

var fingerprintKey = sync.OnceValue(func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand
	return key
})
