package testidp

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestLogoutByTheClient(t *testing.T) {
	p := meet(t, nil)
	token, claims := p.redeem(p.code(p.enter("alice")))
	hint := token.Extra("id_token").(string)
	p.clock.Advance(1e12) // a hint may have expired
	pg := p.get(p.idp.at("logout") + "?" + url.Values{
		"id_token_hint": {hint}, "post_logout_redirect_uri": {signedOut}, "state": {"bye"},
	}.Encode())
	if pg.back == nil || pg.back.String() != signedOut+"&state=bye" {
		t.Fatalf("%d, back to %v\n%s", pg.status, pg.back, pg.body)
	}
	p.refused(p.get(p.ask("prompt", "none")), "login_required")
	if _, err := p.refresh(token.RefreshToken); err == nil {
		t.Errorf("session %v ended, its refresh token did not", claims["sid"])
	}
	pg = p.get(p.idp.at("logout") + "?" + url.Values{"id_token_hint": {hint}}.Encode())
	if pg.status != http.StatusOK || !strings.Contains(pg.body, "Signed out") {
		t.Errorf("once more: %d\n%s", pg.status, pg.body)
	}
}

// Without a hint for this very session any page could sign people out.
func TestLogoutWithoutHintAsks(t *testing.T) {
	p := meet(t, nil)
	stale, _ := p.redeem(p.code(p.enter("bob")))
	p.code(p.enter("alice", "prompt", "login"))
	for name, query := range map[string]url.Values{
		"no hint": {"client_id": {"app"}, "post_logout_redirect_uri": {signedOut}, "state": {"bye"}},
		"the hint of another session": {
			"id_token_hint": {stale.Extra("id_token").(string)}, "post_logout_redirect_uri": {signedOut}, "state": {"bye"},
		},
	} {
		pg := p.get(p.idp.at("logout") + "?" + query.Encode())
		if pg.back != nil || !strings.Contains(pg.body, "alice") {
			t.Fatalf("%s: %d, back to %v\n%s", name, pg.status, pg.back, pg.body)
		}
		p.code(p.get(p.ask("prompt", "none"))) // still logged in
		if pg = p.submit(pg, nil); pg.back == nil || pg.back.String() != signedOut+"&state=bye" {
			t.Fatalf("%s: %d, back to %v\n%s", name, pg.status, pg.back, pg.body)
		}
		p.refused(p.get(p.ask("prompt", "none")), "login_required")
		p.code(p.enter("alice"))
	}
}

func TestLogoutRedirectsOnlyToRegisteredAddresses(t *testing.T) {
	p := meet(t, nil)
	token, _ := p.redeem(p.code(p.enter("alice")))
	hint := token.Extra("id_token").(string)
	other, err := p.idp.Sign(p.idp.Header(), map[string]any{"iss": "http://evil.example", "aud": "app", "sid": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, query := range map[string]url.Values{
		"not registered":         {"id_token_hint": {hint}, "post_logout_redirect_uri": {"http://evil.example/"}},
		"a script":               {"id_token_hint": {hint}, "post_logout_redirect_uri": {"javascript:alert(1)"}},
		"of no client":           {"post_logout_redirect_uri": {signedOut}},
		"of a client with none":  {"client_id": {"public"}, "post_logout_redirect_uri": {signedOut}},
		"hint of another issuer": {"id_token_hint": {other}, "post_logout_redirect_uri": {signedOut}},
		"hint with a changed signature": {
			"id_token_hint": {hint[:strings.LastIndex(hint, ".")+1] + "AAAA"}, "post_logout_redirect_uri": {signedOut},
		},
		"hint and client differ": {"id_token_hint": {hint}, "client_id": {"public"}},
	} {
		if pg := p.get(p.idp.at("logout") + "?" + query.Encode()); pg.status != http.StatusBadRequest || pg.back != nil {
			t.Errorf("%s: %d, back to %v", name, pg.status, pg.back)
		}
	}
	p.code(p.get(p.ask("prompt", "none"))) // nothing ended
}
