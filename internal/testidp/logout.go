package testidp

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/golang-jwt/jwt/v5"
)

// readHint verifies an id_token_hint: signed by one of our keys, issued by us.
// It may have expired (OpenID Connect RP-Initiated Logout §4).
func (p *Provider) readHint(hint string) (jwt.MapClaims, error) {
	p.mu.Lock()
	keys := map[string]*key{}
	for _, k := range p.state.Keys {
		keys[k.ID] = k
	}
	p.mu.Unlock()
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods(p.options.Algorithms), jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(hint, claims, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		k := keys[id]
		if k == nil || k.Algorithm != t.Method.Alg() {
			return nil, errors.New("unknown key")
		}
		return k.signer.Public(), nil
	})
	if err != nil {
		return nil, err
	}
	if claims["iss"] != p.issuer {
		return nil, errors.New("another issuer")
	}
	return claims, nil
}

// logoutRequest is one valid logout request.
type logoutRequest struct {
	client *Client
	uri    string // where to go afterwards, registered by client; may be empty
	state  string
	sid    string // the session that a valid hint names
}

func (p *Provider) parseLogout(form url.Values) (*logoutRequest, error) {
	req := &logoutRequest{uri: form.Get("post_logout_redirect_uri"), state: form.Get("state")}
	id := form.Get("client_id")
	if hint := form.Get("id_token_hint"); hint != "" {
		claims, err := p.readHint(hint)
		if err != nil {
			return nil, &noRedirect{"The request to sign out is not signed by this provider."}
		}
		aud, _ := claims["aud"].(string)
		if id != "" && id != aud {
			return nil, &noRedirect{"The request to sign out contradicts itself."}
		}
		id = aud
		req.sid, _ = claims["sid"].(string)
	}
	req.client = p.clients[id]
	if req.uri == "" {
		return req, nil
	}
	if u, err := url.Parse(req.uri); err != nil || !absoluteHTTP(u) || req.client == nil ||
		req.client.PostLogoutURI == nil || !req.client.PostLogoutURI(req.uri) {
		return nil, &noRedirect{"The address to go to after signing out is not registered."}
	}
	return req, nil
}

// endSession answers OpenID Connect RP-Initiated Logout. A valid hint for the
// browser's own session is as good as the person's word; otherwise the person
// is asked, or any page could sign people out.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) {
	req, ok := p.logoutOf(w, r)
	if !ok {
		return
	}
	v := p.present(r)
	if v.session != nil && v.session.SID != req.sid {
		p.logoutPage(w, logoutPage{
			Username: v.user.Username, Hint: r.Form.Get("id_token_hint"), ClientID: r.Form.Get("client_id"),
			URI: req.uri, State: req.state,
		})
		return
	}
	p.finishLogout(w, r, req, v)
}

// confirmedLogout takes the form of the page that asks.
func (p *Provider) confirmedLogout(w http.ResponseWriter, r *http.Request) {
	req, ok := p.logoutOf(w, r)
	if !ok {
		return
	}
	p.finishLogout(w, r, req, p.present(r))
}

func (p *Provider) logoutOf(w http.ResponseWriter, r *http.Request) (*logoutRequest, bool) {
	if r.ParseForm() != nil {
		p.errorPage(w, "The request to sign out cannot be read.")
		return nil, false
	}
	req, err := p.parseLogout(r.Form)
	if err != nil {
		p.errorPage(w, err.Error())
		return nil, false
	}
	return req, true
}

// finishLogout ends the browser's session and the one the hint names, with
// everything that clients got from them.
func (p *Provider) finishLogout(w http.ResponseWriter, r *http.Request, req *logoutRequest, v visitor) {
	ended := map[string]bool{req.sid: req.sid != ""}
	if v.session != nil {
		ended[v.session.SID] = true
	}
	p.mu.Lock()
	notices := p.endSessions(func(s session) bool { return ended[s.SID] }, func(g grant) bool { return ended[g.SID] })
	p.mu.Unlock()
	_ = p.send(r.Context(), notices) // logged; the person is logged out here either way
	p.setCookie(w, "", -1)
	if req.uri == "" {
		p.signedOutPage(w)
		return
	}
	params := url.Values{}
	if req.state != "" {
		params.Set("state", req.state)
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, withQuery(req.uri, params), http.StatusSeeOther)
}
