package auth

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func tokenIn(t *testing.T, r *Relayed) string {
	t.Helper()
	var answer struct{ Token string }
	if err := json.Unmarshal(r.Body, &answer); err != nil || answer.Token == "" {
		t.Fatalf("no token in %s: %v", r.Body, err)
	}
	return "Bearer " + answer.Token
}

func TestTokenOfAVisitorIsForItsRepositories(t *testing.T) {
	t.Parallel()
	header := tokenIn(t, VisitorToken("ann", "g1", "docker.io", []string{"repository:library/alpine:pull"}))
	v, ok := PresentedVisitor(header)
	if !ok || v.Name != "ann" || v.Generation != "g1" {
		t.Fatalf("%+v, %v", v, ok)
	}
	for _, tt := range []struct {
		registry, repository string
		may                  bool
	}{
		{"docker.io", "library/alpine", true}, {"docker.io", "", true}, {"ghcr.io", "", true},
		{"docker.io", "library/busybox", false}, {"ghcr.io", "library/alpine", false}, {"docker.io", "alpine", false},
	} {
		if got := v.May(tt.registry, tt.repository); got != tt.may {
			t.Errorf("%s of %s: %v", tt.repository, tt.registry, got)
		}
	}
	// At a registry it is worth nothing, and no upstream sees it.
	p := Present(header, "docker.io", "library/alpine")
	if !p.For(&url.URL{Scheme: "https", Host: "registry-1.docker.io"}).IsZero() {
		t.Error("the token of a visitor is sent to an upstream")
	}
}

func TestOtherTokensMakeNoVisitor(t *testing.T) {
	t.Parallel()
	good := tokenIn(t, VisitorToken("ann", "g1", "docker.io", nil))
	for name, header := range map[string]string{
		"none": "", "Basic": "Basic YTpi", "of another program": "Bearer abc.def.ghi", "prefix alone": "Bearer sidemirror.",
		"for a client without a login": tokenIn(t, NoLogin()),
		"with the login of a client":   tokenIn(t, sealedResponse(sealed{Registry: "docker.io", Login: "Basic YTpi"})),
		"cut off":                      good[:len(good)-1], "with a character changed": good[:len(good)-5] + "A" + good[len(good)-4:] + "A",
	} {
		if v, ok := PresentedVisitor(header); ok {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if _, ok := PresentedVisitor(good); !ok {
		t.Error("the token itself is refused")
	}
}

func TestPasswordOfATokenRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in             TokenRequest
		name, password string
	}{
		{TokenRequest{Authorization: credential.NewSecret("Basic YW5uOnA6dw==")}, "ann", "p:w"},
		{TokenRequest{Form: url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"pw"}}}, "ann", "pw"},
		{TokenRequest{Form: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"t"}}}, "", ""},
		{TokenRequest{Authorization: credential.NewSecret("Bearer t")}, "", ""},
		{TokenRequest{}, "", ""},
	} {
		if name, password := tt.in.Password(); name != tt.name || password.Reveal() != tt.password {
			t.Errorf("%q: %q", name, tt.name)
		}
	}
}
