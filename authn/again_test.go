package authn

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
)

// What is open outlives the cookie it was opened with, which a step-up replaces,
// but not the login.
func TestOpenRequestOutlivesItsCookieNotItsLogin(t *testing.T) {
	a, r, req, _ := loggedInRequest(t)
	if err := a.Identify(r, req); err != nil {
		t.Fatal(err)
	}
	again := func() (*access.Request, error) {
		next := &access.Request{Time: req.Time, Scheme: req.Scheme, Host: req.Host, Session: req.Session}
		return next, a.IdentifyAgain(r, next, false)
	}
	stronger := req.Identity
	stronger.Login.ACR = "phr"
	cookie, err := r.Cookie(CookieName("https"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = a.sessions.Start(t.Context(), session.Start{Identity: stronger, Origin: app, Previous: cookie.Value})
	if err != nil {
		t.Fatal(err)
	}
	if next, err := again(); err != nil || next.Session.ID != req.Session.ID || next.Identity.Login.ACR != "phr" {
		t.Errorf("%+v %v", next, err)
	}
	fresh := &access.Request{Time: req.Time, Scheme: req.Scheme, Host: req.Host}
	if a.Identify(r, fresh); !fresh.Identity.Nobody() {
		t.Error("the replaced cookie opens something new")
	}
	if n, err := a.sessions.Revoke(t.Context(), session.Match{LoginID: req.Session.ID}, access.SessionEnded, "ops"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if next, err := again(); access.ReasonOf(err) != access.SessionEnded || !next.Identity.Nobody() || next.Session.ID != "" {
		t.Errorf("%+v %v", next, err)
	}
}

// A visitor who sends nothing uses nothing: the session ends after the pause it
// allows, whatever is open.
func TestOnlyWhatIsSentUsesTheSession(t *testing.T) {
	for _, used := range []bool{false, true} {
		a, r, req, _ := loggedInRequest(t)
		if err := a.Identify(r, req); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 3 {
			req.Time = req.Time.Add(40 * time.Minute) // the default allows an hour
			err = a.IdentifyAgain(r, req, used)
		}
		if used && err != nil || !used && access.ReasonOf(err) != access.SessionExpired {
			t.Errorf("used %v: %v", used, err)
		}
	}
}

// A proof counts once. A request that has shown it is not asked for another one
// while it is open, but its token has to be good.
func TestOpenRequestIsNotAskedForItsProofAgain(t *testing.T) {
	s := world(t, withTokens)
	h := s.holder()
	raw := h.bound()
	r := httptest.NewRequest(http.MethodGet, app+"/orders?x=1", nil)
	r.TLS = nil
	r.Header.Set("Authorization", "DPoP "+raw)
	r.Header.Set("DPoP", h.prove(raw, nil))
	req := &access.Request{Time: s.clock.Now(), Method: "GET", Scheme: "https", Host: "app.corp.test", Path: "/orders"}
	if err := s.auth.Identify(r, req); err != nil || req.Identity.Nobody() {
		t.Fatalf("%+v %v", req.Credential, err)
	}
	again := func() *access.Request {
		next := &access.Request{Time: s.clock.Now(), Scheme: "https", Host: "app.corp.test"}
		if err := s.auth.IdentifyAgain(r, next, true); err != nil {
			t.Fatal(err)
		}
		return next
	}
	if next := again(); next.Identity.User() != req.Identity.User() || !next.Credential.Expires.Equal(req.Credential.Expires) {
		t.Errorf("%+v", next)
	}
	s.clock.Advance(time.Hour)
	if next := again(); !next.Identity.Nobody() || next.Credential.Problem != access.TokenExpired {
		t.Errorf("%+v", next)
	}
}

// A revocation reaches what no session record covers: access tokens from before.
func TestTokensFromBeforeARevocationAreRefused(t *testing.T) {
	s := world(t, withTokens)
	old := s.accessToken(nil)
	if req := s.present("Bearer "+old, nil); req.Identity.User() != "corp:batch" || !req.Credential.Issued.Equal(s.clock.Now()) {
		t.Fatalf("%+v", req.Credential)
	}
	s.clock.Advance(time.Second)
	who := access.Revocation{Issuer: "https://corp.test", Subject: "batch", By: "ops", Why: "key leaked"}
	if _, err := s.sessions.NotBefore(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	s.refuses(old, access.TokenRevoked)
	// The provider's clock may be ahead of ours by a minute.
	s.clock.Advance(2 * skew)
	if req := s.present("Bearer "+s.accessToken(nil), nil); req.Identity.Nobody() {
		t.Errorf("a token from afterwards: %+v", req.Credential)
	}
	s.refuses(old, access.TokenRevoked)
}
