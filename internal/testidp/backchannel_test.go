package testidp

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
)

// inbox is a client's back-channel logout address, which verifies what it gets
// with a library that is not ours.
type inbox struct {
	mu     sync.Mutex
	tokens []*oidc.LogoutToken
	answer int
}

func (i *inbox) take() []*oidc.LogoutToken {
	i.mu.Lock()
	defer i.mu.Unlock()
	tokens := i.tokens
	i.tokens = nil
	return tokens
}

func meetWithInbox(t *testing.T) (*party, *inbox) {
	t.Helper()
	in := &inbox{answer: http.StatusOK}
	var p *party
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		provider, err := oidc.NewProvider(r.Context(), p.idp.Issuer())
		if err != nil {
			t.Error(err)
			return
		}
		verifier := provider.Verifier(&oidc.Config{ClientID: "app", Now: p.clock.Now, SupportedSigningAlgs: []string{"ES256"}})
		token, err := verifier.VerifyLogout(r.Context(), r.PostFormValue("logout_token"))
		if err != nil {
			t.Error(err)
			return
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.tokens = append(in.tokens, token)
		w.WriteHeader(in.answer)
	}))
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p = meet(t, func(o *Options) {
		o.Transport = transport
		o.Clients[0].BackchannelLogoutURI = server.URL
	})
	return p, in
}

func TestClientsAreToldOfLogouts(t *testing.T) {
	p, in := meetWithInbox(t)
	token, claims := p.redeem(p.code(p.enter("alice")))
	p.get(p.idp.at("logout") + "?" + url.Values{"id_token_hint": {token.Extra("id_token").(string)}}.Encode())
	got := in.take()
	if len(got) != 1 || got[0].Subject != "alice" || got[0].SessionID != claims["sid"] {
		t.Fatalf("%+v, want the session %v", got, claims["sid"])
	}
	first := got[0].TokenID

	p.code(p.enter("alice"))
	if err := p.idp.LogoutUser(context.Background(), "alice"); err != nil {
		t.Fatal(err)
	}
	if got = in.take(); len(got) != 0 {
		t.Errorf("told of a session without tokens: %+v", got)
	}
	token, claims = p.redeem(p.code(p.enter("alice")))
	if err := p.idp.LogoutUser(context.Background(), "bob"); err != nil {
		t.Fatal(err)
	}
	if err := p.idp.LogoutUser(context.Background(), "alice"); err != nil {
		t.Fatal(err)
	}
	if got = in.take(); len(got) != 1 || got[0].SessionID != claims["sid"] || got[0].TokenID == first {
		t.Errorf("%+v", got)
	}
	p.refused(p.get(p.ask("prompt", "none")), "login_required")
	if _, err := p.refresh(token.RefreshToken); err == nil {
		t.Error("the refresh token did not end")
	}
}

func TestLogoutTellsOfClientsThatRefuse(t *testing.T) {
	p, in := meetWithInbox(t)
	in.answer = http.StatusBadRequest
	p.redeem(p.code(p.enter("alice")))
	if err := p.idp.LogoutUser(context.Background(), "alice"); err == nil || !strings.Contains(err.Error(), "400") {
		t.Error(err)
	}
	p.refused(p.get(p.ask("prompt", "none")), "login_required")
}
