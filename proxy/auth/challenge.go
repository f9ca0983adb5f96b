// Package auth answers the challenges of registries: it parses them, exchanges
// credentials for tokens, keeps the tokens, and sees to it that a credential goes
// to no other place than the registry's own token server.
//
// [Transport] does so on the daemon's behalf. [Transport.Relay] is the other mode,
// in which the client answers, by way of a token endpoint of ours.
package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxChallenge bounds all WWW-Authenticate values of one answer together, in bytes.
const maxChallenge = 8 << 10

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110, 11.6.1).
type Challenge struct {
	Scheme string            // lower case
	Params map[string]string // names in lower case
}

// ParseChallenges reads every challenge in h: several in one value or in many, in
// any case, with quoted pairs and with space around "=". One that is malformed, or
// that gives a parameter twice, refuses them all: there is no saying which
// part of it the registry meant.
func ParseChallenges(h http.Header) ([]Challenge, error) {
	values := h.Values("WWW-Authenticate")
	total := 0
	var all []Challenge
	for _, v := range values {
		if total += len(v); total > maxChallenge {
			return nil, fmt.Errorf("the challenge is longer than %d bytes", maxChallenge)
		}
		p := challengeParser{rest: v}
		found, err := p.parse()
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// choose picks the challenge to answer: Bearer before Basic, however they are
// ordered. None that we can answer gives nil.
func choose(all []Challenge) (*Challenge, error) {
	var bearer, basic *Challenge
	for i := range all {
		switch c := &all[i]; c.Scheme {
		case "bearer":
			if bearer != nil && bearer.Params["realm"] != c.Params["realm"] {
				return nil, errors.New("two Bearer challenges name different realms")
			}
			if bearer == nil {
				bearer = c
			}
		case "basic":
			if basic == nil {
				basic = c
			}
		}
	}
	if bearer == nil {
		return basic, nil
	}
	if bearer.Params["realm"] == "" {
		return nil, errors.New("the Bearer challenge names no realm")
	}
	return bearer, nil
}

// challengeParser reads one header value: #challenge, where
//
//	challenge = scheme [ 1*SP ( token68 / #auth-param ) ]
//
// Since commas part challenges as well as parameters, a token that "=" follows is a
// parameter, and any other starts the next challenge.
type challengeParser struct{ rest string }

func (p *challengeParser) parse() ([]Challenge, error) {
	var all []Challenge
	for {
		p.skip(" \t,")
		if p.rest == "" {
			return all, nil
		}
		name := p.token()
		if name == "" {
			return nil, errors.New("the challenge is malformed")
		}
		if value, ok, err := p.value(); err != nil {
			return nil, err
		} else if ok {
			if len(all) == 0 {
				return nil, errors.New("the challenge has a parameter before any scheme")
			}
			params, name := all[len(all)-1].Params, strings.ToLower(name)
			if _, twice := params[name]; twice {
				return nil, fmt.Errorf("the challenge gives %q twice", name)
			}
			params[name] = value
			continue
		}
		all = append(all, Challenge{Scheme: strings.ToLower(name), Params: map[string]string{}})
		p.token68()
	}
}

func (p *challengeParser) skip(cutset string) { p.rest = strings.TrimLeft(p.rest, cutset) }

func (p *challengeParser) token() string {
	n := 0
	for n < len(p.rest) && isTokenChar(p.rest[n]) {
		n++
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t
}

// value reads "= value" if that comes next.
func (p *challengeParser) value() (string, bool, error) {
	after, ok := strings.CutPrefix(strings.TrimLeft(p.rest, " \t"), "=")
	if !ok {
		return "", false, nil
	}
	p.rest = strings.TrimLeft(after, " \t")
	if strings.HasPrefix(p.rest, `"`) {
		v, err := p.quoted()
		return v, true, err
	}
	return p.token(), true, nil
}

func (p *challengeParser) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("the challenge has a quote that does not end")
}

// token68 skips the one value without a name that Negotiate and its like carry.
func (p *challengeParser) token68() {
	after := strings.TrimLeft(p.rest, " \t")
	if len(after) == len(p.rest) {
		return
	}
	n := 0
	for n < len(after) && (isTokenChar(after[n]) || after[n] == '/') {
		n++
	}
	rest := strings.TrimLeft(strings.TrimLeft(after[n:], "="), " \t")
	if n > 0 && (rest == "" || rest[0] == ',') {
		p.rest = rest
	}
}

func isTokenChar(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
