// Package auth answers the challenges of registries: it parses them, exchanges
// credentials for tokens, stores the tokens, and sends a credential only to the
// registry itself and to the registry's own token server.
//
// [Transport] does so on behalf of the daemon. [Transport.Relay] is the other mode,
// in which the client answers the challenges through a token endpoint of sidemirror.
package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxChallenge bounds all WWW-Authenticate values of one response together, in bytes.
const maxChallenge = 8 << 10

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110, 11.6.1).
type Challenge struct {
	Scheme string            // lower case
	Params map[string]string // names in lower case
}

// ParseChallenges reads every challenge in h: several in one value or in many, in
// any case, with quoted pairs and with space around "=". It also reads what
// containerd reads and RFC 9110 does not allow: ";" as a separator, and an unquoted
// value such as a host and port. The realm is checked before anything is sent to it,
// so that reading more does not trust more.
//
// A value that it cannot read, or one that names two realms or two services, is an
// error unless another value holds a Bearer challenge that is well-formed.
func ParseChallenges(h http.Header) ([]Challenge, error) {
	total := 0
	var all []Challenge
	var failed error
	for _, v := range h.Values("WWW-Authenticate") {
		if total += len(v); total > maxChallenge {
			return nil, fmt.Errorf("the challenge is longer than %d bytes", maxChallenge)
		}
		p := challengeParser{rest: v}
		found, err := p.parse()
		if err != nil {
			failed = err
			continue
		}
		all = append(all, found...)
	}
	if failed != nil && !slices.ContainsFunc(all, func(c Challenge) bool { return c.Scheme == "bearer" }) {
		return nil, failed
	}
	return all, nil
}

// choose picks the challenge to answer: Bearer before Basic, in whatever order they
// come. It returns nil if there is none of either scheme.
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
// Commas separate challenges as well as parameters. A token that "=" follows is
// therefore a parameter, and any other token starts the next challenge.
type challengeParser struct{ rest string }

func (p *challengeParser) parse() ([]Challenge, error) {
	var all []Challenge
	for {
		p.skip(" \t,;")
		if p.rest == "" {
			return all, nil
		}
		name := p.token()
		if name == "" {
			return nil, errors.New("the challenge is malformed")
		}
		value, ok, err := p.value()
		if err != nil {
			return nil, err
		}
		if !ok {
			all = append(all, Challenge{Scheme: strings.ToLower(name), Params: map[string]string{}})
			p.token68()
			continue
		}
		if len(all) == 0 {
			return nil, errors.New("the challenge has a parameter before any scheme")
		}
		if err := all[len(all)-1].set(strings.ToLower(name), value); err != nil {
			return nil, err
		}
	}
}

// set records a parameter. A realm or service that comes twice must be the same both
// times. Of the others the first counts, since nothing is decided by them.
func (c Challenge) set(name, value string) error {
	old, twice := c.Params[name]
	if !twice {
		c.Params[name] = value
		return nil
	}
	if old != value && (name == "realm" || name == "service") {
		return fmt.Errorf("the challenge names two different values of %q", name)
	}
	return nil
}

func (p *challengeParser) skip(cutset string) { p.rest = strings.TrimLeft(p.rest, cutset) }

func (p *challengeParser) token() string { return p.while(isTokenChar) }

func (p *challengeParser) while(is func(byte) bool) string {
	n := 0
	for n < len(p.rest) && is(p.rest[n]) {
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
	return p.while(isUnquotedChar), true, nil
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

// token68 skips the one value without a name that Negotiate and similar schemes carry.
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

// isUnquotedChar reports whether c may stand in a value without quotes: in a token,
// and in the URL or host:port that some registries do not quote.
func isUnquotedChar(c byte) bool { return isTokenChar(c) || strings.IndexByte(":/?@=[]", c) >= 0 }
