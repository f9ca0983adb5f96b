package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

const (
	// sealedPrefix marks the tokens of sidemirror's own. No upstream ever sees one.
	sealedPrefix = "sidemirror."

	sealedLife     = 5 * time.Minute
	maxSealedLogin = 12 << 10 // bytes; a sealed token must fit into a request header
)

// sealed is what a token of sidemirror's own holds, encrypted with a key that never leaves this
// process. Registries that take a login itself (Basic) have no token server, and clients that were
// challenged with Bearer want a token: it holds their login until they send it back. A token
// without a login gives its holder nothing: it tells a client that it needs none.
type sealed struct {
	Registry     string        `json:"registry,omitempty"`
	Upstream     string        `json:"upstream,omitempty"`
	Repositories []string      `json:"repositories,omitempty"` // as the upstream names them
	Login        string        `json:"login,omitempty"`        // the value of an Authorization header
	Visitor      string        `json:"visitor,omitempty"`      // the name of a user of the site
	Generation   string        `json:"generation,omitempty"`   // of the password of Visitor
	End          time.Duration `json:"end"`                    // on the clock of the sealer
}

// sealer seals and opens tokens. Its clock does not follow the host's.
type sealer struct {
	aead    cipher.AEAD
	started time.Time
}

var tokenSealer = sync.OnceValue(newSealer)

func newSealer() sealer {
	key := make([]byte, 32)
	_, _ = rand.Read(key)                          // never fails: crypto/rand
	block, _ := aes.NewCipher(key)                 // fails for other sizes of key only
	aead, _ := cipher.NewGCMWithRandomNonce(block) // fails for other ciphers only
	return sealer{aead: aead, started: time.Now()}
}

func (s sealer) seal(t sealed) string {
	t.End = time.Since(s.started) + sealedLife
	text, _ := json.Marshal(t) // holds nothing that cannot be marshalled
	return sealedPrefix + base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, text, []byte(sealedPrefix)))
}

// open returns what a token of this process holds. It fails for one that has ended.
func (s sealer) open(token string) (sealed, bool) {
	var t sealed
	box, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, sealedPrefix))
	if err != nil {
		return t, false
	}
	text, err := s.aead.Open(nil, nil, box, []byte(sealedPrefix))
	if err != nil || json.Unmarshal(text, &t) != nil {
		return sealed{}, false
	}
	return t, time.Since(s.started) < t.End
}

// Presented is the Authorization that a client sends with a request, as far as it counts for what
// the request asks for. The zero value is none.
type Presented struct {
	header   credential.Secret
	upstream string // if not empty, the only one that it is for
	own      bool
}

// Present reads the Authorization header of a request for a repository of a registry; the
// repository is empty in a request for neither. A token of sidemirror's own is opened. If it has
// ended, or is for another registry or repository, it counts as no Authorization.
func Present(authorization, registry, repository string) Presented {
	token, own := ownToken(authorization)
	if !own {
		return Presented{header: credential.NewSecret(authorization)}
	}
	t, ok := tokenSealer().open(token)
	if !ok {
		return Presented{}
	}
	p := Presented{own: true}
	if t.Registry == registry && (repository == "" || slices.Contains(t.Repositories, repository)) {
		p.header, p.upstream = credential.NewSecret(t.Login), t.Upstream
	}
	return p
}

// ownToken returns the token of a header that holds one of sidemirror's own, whatever its scheme: no
// upstream may see it.
func ownToken(authorization string) (string, bool) {
	token := strings.TrimLeft(authorization, " \t")
	if i := strings.IndexAny(token, " \t"); i >= 0 {
		token = strings.TrimLeft(token[i:], " \t")
	}
	return token, strings.HasPrefix(token, sealedPrefix)
}

// For returns the Authorization with which the upstream at u is asked; zero for none.
func (p Presented) For(u *url.URL) credential.Secret {
	if p.upstream != "" && p.upstream != upstreamKey(u) {
		return credential.Secret{}
	}
	return p.header
}

// Own reports whether the client has a token of sidemirror's own that has not ended.
func (p Presented) Own() bool { return p.own }

// upstreamKey returns the name under which a sealed login is bound to an upstream: its origin, and
// the path that its API is below.
func upstreamKey(u *url.URL) string {
	path, _, _ := strings.Cut(strings.TrimSuffix(u.Path, "/")+"/", "/v2/")
	return originOf(u) + strings.TrimSuffix(path, "/")
}

// NoLogin returns the response to a token request of a client that needs no token, because
// sidemirror answers the registry's challenges or the registry sends none: a token that gives its
// holder nothing.
func NoLogin() *Relayed { return sealedResponse(sealed{}) }

func sealedResponse(t sealed) *Relayed {
	token := tokenSealer().seal(t)
	body, _ := json.Marshal(map[string]any{ // nothing that cannot be marshalled
		"token": token, "access_token": token, "expires_in": int(sealedLife / time.Second),
	})
	return &Relayed{Status: http.StatusOK, ContentType: "application/json", Body: body}
}
