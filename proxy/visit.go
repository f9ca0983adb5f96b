package proxy

import (
	"errors"
	"net/http"

	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/visitor"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// errOutside is in the refusal of a visitor whose address is not served.
var errOutside = errors.New("the visitor's address is not in site.allow")

// ownRefusal is a refusal that is about the caller and reveals nothing of a registry.
type ownRefusal struct{ refusal *oci.Error }

func (e ownRefusal) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e ownRefusal) Unwrap() error { return e.refusal }

// receive admits the visitor who has sent r, a request of the site, before anything else of it is
// looked at.
func (p *Proxy) receive(w *response, r *http.Request) error {
	visit, err := p.visitors.Admit(r)
	w.line.visit = visit
	if err == nil {
		w.ResponseWriter = visit.Writer(r.Context(), w.ResponseWriter)
		return nil
	}
	e := oci.AsError(err)
	if e.Code == oci.Denied {
		// Each further request costs its sender another connection.
		w.Header().Set("Connection", "close")
		e.Err = errors.Join(e.Err, errOutside)
	}
	return ownRefusal{e}
}

// logIn checks the login of a visitor, if the site has users, for what a request asks for. It
// reports whether it has responded. The login is for the site alone: it is taken out of the request,
// and every registry is asked as for an anonymous client.
func (p *Proxy) logIn(w *response, r *http.Request, asked oci.Request) (done bool, err error) {
	if w.line.visit == nil || !p.visitors.Users.Required() {
		return false, nil
	}
	if asked.Kind == oci.Token {
		return true, p.serveVisitorToken(w, r, asked)
	}
	err = p.checkLogin(w, r, asked)
	r.Header.Del("Authorization")
	return false, err
}

// checkLogin checks the token or the password of a visitor.
func (p *Proxy) checkLogin(w *response, r *http.Request, asked oci.Request) error {
	if v, ok := auth.PresentedVisitor(r.Header.Get("Authorization")); ok {
		user := users.User{Name: v.Name, Generation: v.Generation}
		if p.visitors.Users.Current(user) && v.May(asked.Registry, oci.Complete(asked.Registry, asked.Repository)) {
			w.line.visit.User = v.Name
			return nil
		}
	}
	e := &oci.Error{Code: oci.Unauthorized, Message: "this site requires a login"}
	if name, password, ok := r.BasicAuth(); ok {
		_, err := p.visitors.LogIn(r.Context(), w.line.visit, visitor.Login{Name: name, Password: secret.New(password)})
		if err == nil {
			return nil
		}
		e = oci.AsError(err)
	}
	if e.Code == oci.Unauthorized {
		named := request{Request: asked, http: r}
		e.Challenge = auth.BearerChallenge(named.ownRealm(), named.localRepository())
	}
	return ownRefusal{e}
}

// serveVisitorToken is sidemirror's token endpoint for the visitors of a site that has users.
func (p *Proxy) serveVisitorToken(w *response, r *http.Request, asked oci.Request) error {
	in := auth.TokenRequest{Authorization: credential.NewSecret(r.Header.Get("Authorization"))}
	scopes := asked.Query["scope"]
	if r.Method == http.MethodPost {
		form, err := auth.ReadForm(r)
		if err != nil {
			return err
		}
		in.Form = form
		scopes = append(scopes, form["scope"]...)
	}
	registry, completed, err := auth.CompleteScopes(asked.Registry, scopes, p.routes, asked.Form == oci.ByDefault)
	if err != nil {
		return p.withRoutes(r, err)
	}
	name, password := in.Password()
	user, err := p.visitors.LogIn(r.Context(), w.line.visit, visitor.Login{Name: name, Password: password})
	if err != nil {
		e := oci.AsError(err)
		if e.Code == oci.Unauthorized {
			e.Challenge = `Basic realm="sidemirror"`
		}
		return ownRefusal{e}
	}
	return writeToken(w, auth.VisitorToken(user.Name, user.Generation, registry, completed))
}
