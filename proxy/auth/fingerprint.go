package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
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
	return fingerprintPrefix + hex.EncodeToString(mac.Sum(nil)[:8])
}

const fingerprintPrefix = "bearer:"

// IsFingerprint reports whether name is a [Fingerprint].
func IsFingerprint(name string) bool { return strings.HasPrefix(name, fingerprintPrefix) }

var fingerprintKey = sync.OnceValue(func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand
	return key
})
