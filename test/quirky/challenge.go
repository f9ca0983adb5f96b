package quirky

import (
	"fmt"
	"net/http"
	"strings"
)

// Challenge makes the values of WWW-Authenticate for a realm, a service and a
// scope, which may be empty.
type Challenge func(realm, service, scope string) []string

// Challenges are shapes of one and the same challenge that real registries and
// what stands before them send, by what is odd about them. A client has to
// understand every one (RFC 9110, 11.2 and 11.6.1).
var Challenges = map[string]Challenge{
	"plain": plainChallenge,
	"basic before bearer in one header": func(realm, service, scope string) []string {
		return []string{`Basic realm="registry", ` + plainChallenge(realm, service, scope)[0]}
	},
	"basic after bearer in one header": func(realm, service, scope string) []string {
		return []string{plainChallenge(realm, service, scope)[0] + `, Basic realm="registry"`}
	},
	"two headers": func(realm, service, scope string) []string {
		return append([]string{`Basic realm="registry"`}, plainChallenge(realm, service, scope)...)
	},
	"odd case": func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`bEARER Realm="%s",SERVICE="%s",sCope="%s"`, realm, service, scope)}
	},
	"spaces around the equals sign": func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`Bearer  realm = "%s" , service= "%s" ,scope ="%s"`, realm, service, scope)}
	},
	"a comma inside quotes": func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`Bearer error="a, realm=\"http://nowhere.test/\", b",realm="%s",service="%s",scope="%s"`, realm, service, scope)}
	},
	"escaped characters": func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`Bearer realm="%s",service="%s",scope="%s"`, strings.ReplaceAll(realm, "/", `\/`), service, scope)}
	},
	"an unknown scheme with a token68 first": func(realm, service, scope string) []string {
		return []string{`Negotiate YWJj==, ` + plainChallenge(realm, service, scope)[0]}
	},
	"empty list members": func(realm, service, scope string) []string {
		return []string{`, ,` + strings.ReplaceAll(plainChallenge(realm, service, scope)[0], `",`, `",,`) + ` ,`}
	},
	"no service, no scope": func(realm, _, _ string) []string {
		return []string{fmt.Sprintf(`Bearer realm="%s"`, realm)}
	},
	// The rest is not RFC 9110's, and containerd accepts it.
	"a semicolon at the end": func(realm, service, scope string) []string {
		return []string{plainChallenge(realm, service, scope)[0] + ";"}
	},
	"values without quotes": func(realm, service, _ string) []string {
		return []string{fmt.Sprintf(`Bearer realm=%s,service=%s`, realm, service)}
	},
	"the same parameters twice": func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`%s,realm="%s",service="%s"`, plainChallenge(realm, service, scope)[0], realm, service)}
	},
}

func plainChallenge(realm, service, scope string) []string {
	c := fmt.Sprintf(`Bearer realm="%s",service="%s"`, realm, service)
	if scope != "" {
		c += fmt.Sprintf(`,scope="%s"`, scope)
	}
	return []string{c}
}

// challenge answers 401 as the options have it.
func (s *Server) challenge(w http.ResponseWriter, o Options, scope string) {
	if o.Auth.Scheme == "Basic" {
		w.Header()["Www-Authenticate"] = []string{`Basic realm="registry"`}
	} else {
		make := o.Auth.Challenge
		if make == nil {
			make = plainChallenge
		}
		realm := o.Auth.Realm
		if realm == "" {
			realm = s.TokenOrigin() + tokenPath
		}
		w.Header()["Www-Authenticate"] = make(realm, service, scope)
	}
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}
