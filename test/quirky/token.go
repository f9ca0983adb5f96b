package quirky

import (
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	tokenPath = "/token"
	service   = "quirky"
)

// token is one that was given out.
type token struct {
	scopes  map[string]bool // repositories that may be pulled
	expires time.Time
	revoked bool
}

// RevokeTokens makes the registry refuse all tokens given out so far.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		t.revoked = true
	}
}

func (s *Server) tokenOrigin() string {
	if s.options.Auth.ForeignHost {
		return s.token.URL
	}
	return s.registry.URL
}

// authorized answers the request where it may not have repository ("" for /v2/),
// and returns false.
func (s *Server) authorized(w http.ResponseWriter, r *http.Request, repository string) bool {
	o := s.now()
	scope := o.Auth.ProbeScope
	if repository != "" {
		scope = "repository:" + repository + ":pull"
	}
	switch o.Auth.Scheme {
	case "":
		return true
	case "Basic":
		user, password, ok := r.BasicAuth()
		if ok && o.Auth.valid(user, password) || !ok && repository != "" && o.Auth.may("", repository) {
			return true
		}
	case "Bearer":
		text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			break
		}
		s.mu.Lock()
		t := s.tokens[text]
		var stale, granted bool
		if t != nil {
			stale = t.revoked || time.Now().After(t.expires)
			granted = repository == "" || t.scopes[repository]
		}
		s.mu.Unlock()
		if granted && !stale {
			return true
		}
		if stale && o.Auth.StaleStatus != 0 {
			refuse(w, o.Auth.StaleStatus, "DENIED", "Your Authorization Token has expired. Please run 'docker login' again.")
			return false
		}
	}
	s.challenge(w, o, scope)
	return false
}

func (a Auth) valid(user, password string) bool {
	want, ok := a.Users[user]
	return ok && want == password
}

// may reports whether user ("" is anonymous) may pull repository.
func (a Auth) may(user, repository string) bool {
	if user != "" {
		return true
	}
	for _, p := range a.Private {
		if strings.HasPrefix(repository, p) {
			return false
		}
	}
	return true
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	o := s.now().Auth
	if r.URL.Path != tokenPath {
		refuse(w, http.StatusNotFound, "UNKNOWN", "no such page")
		return
	}
	if r.Method == http.MethodGet && o.PostOnly || r.Method == http.MethodPost && o.GetOnly {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
		return
	}
	if o.TokenStatus != 0 || o.TokenType != "" || o.TokenBody != nil || o.TokenStall {
		s.cannedToken(w, r, o)
		return
	}
	user, ok := o.login(r)
	if !ok {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	var scopes []string
	for _, p := range r.Form["scope"] {
		scopes = append(scopes, strings.Fields(p)...)
	}
	body := map[string]any{"issued_at": time.Now().UTC().Format(time.RFC3339)}
	name := "token"
	if o.AccessToken {
		name = "access_token"
	}
	body[name] = s.grant(o, user, scopes)
	switch o.ExpiresIn {
	case "-":
	case "":
		body["expires_in"] = 300
	default:
		body["expires_in"] = json.RawMessage(o.ExpiresIn)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(marshal(body))
}

// login is who asks for a token: "" is anonymous. It parses the form.
func (a Auth) login(r *http.Request) (user string, ok bool) {
	if err := r.ParseForm(); err != nil {
		return "", false
	}
	if user, password, sent := r.BasicAuth(); sent {
		return user, a.valid(user, password)
	}
	switch r.PostForm.Get("grant_type") {
	case "password":
		user := r.PostForm.Get("username")
		return user, a.valid(user, r.PostForm.Get("password"))
	case "refresh_token":
		user, ok := a.IdentityTokens[r.PostForm.Get("refresh_token")]
		return user, ok
	}
	return "", !a.RefuseAnonymous
}

func (s *Server) grant(o Auth, user string, scopes []string) string {
	t := &token{scopes: map[string]bool{}, expires: time.Now().Add(time.Hour)}
	if o.Life != 0 {
		t.expires = time.Now().Add(o.Life)
	}
	for _, scope := range scopes {
		resource, ok := strings.CutPrefix(scope, "repository:")
		end := strings.LastIndexByte(resource, ':')
		if !ok || end < 0 || !strings.Contains(resource[end:], "pull") {
			continue
		}
		if repository := resource[:end]; o.may(user, repository) {
			t.scopes[repository] = true
		}
	}
	text := fmt.Sprintf("token-of-%s-%s", user, crand.Text())
	if missing := o.TokenSize - len(text); missing > 0 {
		text += strings.Repeat("x", missing)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[text] = t
	return text
}

func (s *Server) cannedToken(w http.ResponseWriter, r *http.Request, o Auth) {
	if o.TokenType != "" {
		w.Header().Set("Content-Type", o.TokenType)
	}
	if o.TokenStatus != 0 {
		w.WriteHeader(o.TokenStatus)
	}
	_, _ = w.Write(o.TokenBody)
	if o.TokenStall {
		_ = http.NewResponseController(w).Flush()
		s.hang(r)
	}
}
