package authn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

// inspector is the introspection endpoint of corp: answers by token.
type inspector struct {
	answers map[string]any // a string is the whole body
	asked   int
	status  int
}

// inspected gives corp an introspection endpoint.
func inspected(t *testing.T, change func(*Options)) (*stage, *inspector) {
	s := world(t, func(o *Options) {
		withTokens(o)
		o.Providers[0].Introspection.Cache = access.Duration(30 * time.Second)
		if change != nil {
			change(o)
		}
	})
	i := &inspector{answers: map[string]any{}}
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) { m["introspection_endpoint"] = "https://corp.test/introspect" }
	})
	s.net["corp.test"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/introspect" {
			s.corp.ServeHTTP(w, r)
			return
		}
		i.asked++
		id, secret, _ := r.BasicAuth()
		switch {
		case i.status != 0:
			w.WriteHeader(i.status)
		case r.Method != http.MethodPost || id != "doorward" || secret != "s3cret%26%3A" || r.PostFormValue("token_type_hint") != "access_token":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			answer, known := i.answers[r.PostFormValue("token")]
			if !known {
				answer = map[string]any{"active": false}
			}
			if body, ok := answer.(string); ok {
				fmt.Fprint(w, body)
				return
			}
			json.NewEncoder(w).Encode(answer)
		}
	})
	return s, i
}

func (s *stage) activeAnswer(change func(map[string]any)) map[string]any {
	now := s.clock.Now().Unix()
	a := map[string]any{"active": true, "token_type": "Bearer", "aud": "doorward-api", "sub": "batch", "client_id": "batch",
		"scope": "b a", "exp": now + 600, "iat": now}
	if change != nil {
		change(a)
	}
	return a
}

func TestOpaqueTokens(t *testing.T) {
	s, i := inspected(t, nil)
	i.answers["opaque"] = s.activeAnswer(nil)
	for range 3 {
		id := s.present("Bearer opaque", nil).Identity
		if id.User() != "corp:batch" || id.Issuer != "https://corp.test" || id.ClientID != "batch" || len(id.Scopes) != 2 || id.Kind != access.Service {
			t.Fatalf("%+v", id)
		}
	}
	if i.asked != 1 {
		t.Errorf("asked %d times within the cache time", i.asked)
	}
	// Revoked: it works until the answer is too old, and not longer.
	delete(i.answers, "opaque")
	s.clock.Advance(29 * time.Second)
	if req := s.present("Bearer opaque", nil); req.Identity.Nobody() {
		t.Error(req.Credential.Problem)
	}
	s.clock.Advance(time.Second)
	s.refuses("opaque", access.TokenRevoked)
	s.refuses("opaque", access.TokenRevoked)
	if i.asked != 2 {
		t.Errorf("asked %d times about a revoked token", i.asked)
	}
	// A good answer does not count beyond the token's own end.
	i.answers["short"] = s.activeAnswer(func(a map[string]any) { a["exp"] = s.clock.Now().Unix() + 5 })
	s.present("Bearer short", nil)
	s.clock.Advance(5 * time.Second)
	s.refuses("short", access.TokenExpired)
}

func TestIntrospectionAnswers(t *testing.T) {
	s, i := inspected(t, nil)
	now := s.clock.Now().Unix()
	for token, c := range map[string]struct {
		answer any
		want   access.Reason
	}{
		"inactive":       {map[string]any{"active": false}, access.TokenRevoked},
		"no-active":      {s.activeAnswer(func(a map[string]any) { delete(a, "active") }), access.TokenRevoked},
		"active-as-text": {s.activeAnswer(func(a map[string]any) { a["active"] = "true" }), access.ProviderUnavailable},
		"active-twice":   {`{"active":false,"active":true}`, access.ProviderUnavailable},
		"ACTIVE":         {`{"ACTIVE":true,"token_type":"Bearer","aud":"doorward-api","sub":"x"}`, access.TokenRevoked},
		"not-json":       {"<html>", access.ProviderUnavailable},
		"huge":           {`{"active":true}` + strings.Repeat(" ", jose.MaxDocument), access.ProviderUnavailable},
		"other-aud":      {s.activeAnswer(func(a map[string]any) { a["aud"] = "x" }), access.TokenAudience},
		"no-aud":         {s.activeAnswer(func(a map[string]any) { delete(a, "aud") }), access.TokenAudience},
		"other-iss":      {s.activeAnswer(func(a map[string]any) { a["iss"] = "https://x.test" }), access.TokenInvalid},
		"expired":        {s.activeAnswer(func(a map[string]any) { a["exp"] = now - 1 }), access.TokenExpired},
		"exp-as-text":    {s.activeAnswer(func(a map[string]any) { a["exp"] = "9999999999" }), access.TokenInvalid},
		"refresh":        {s.activeAnswer(func(a map[string]any) { a["token_type"] = "refresh_token" }), access.TokenNotAccessToken},
		"no-type":        {s.activeAnswer(func(a map[string]any) { delete(a, "token_type") }), access.TokenNotAccessToken},
		"nobody":         {s.activeAnswer(func(a map[string]any) { delete(a, "sub"); delete(a, "client_id") }), access.TokenInvalid},
		"bound": {s.activeAnswer(func(a map[string]any) {
			a["cnf"] = map[string]any{"jkt": tokenHash("x")}
		}), access.TokenBindingMismatch},
		"client-only": {s.activeAnswer(func(a map[string]any) { delete(a, "sub"); delete(a, "exp") }), ""},
	} {
		i.answers[token] = c.answer
		if req := s.present("Bearer "+token, nil); req.Credential.Problem != c.want {
			t.Errorf("%s: got %q, want %q", token, req.Credential.Problem, c.want)
		}
	}
}

// That the provider could not be asked is no answer, and is not kept.
func TestIntrospectionOutage(t *testing.T) {
	s, i := inspected(t, nil)
	i.answers["opaque"] = s.activeAnswer(nil)
	for _, status := range []int{500, 503, 429, 401, 404} {
		i.status = status
		s.refuses("opaque", access.ProviderUnavailable)
	}
	i.status = 0
	if req := s.present("Bearer opaque", nil); req.Identity.Nobody() {
		t.Error(req.Credential.Problem)
	}
	s.clock.Advance(31 * time.Second)
	i.status = 503
	s.refuses("opaque", access.ProviderUnavailable)
}

// With introspection a signed token can be revoked, too.
func TestSignedTokensAreAskedAbout(t *testing.T) {
	s, i := inspected(t, nil)
	raw := s.accessToken(nil)
	s.refuses(raw, access.TokenRevoked)
	i.answers[raw] = s.activeAnswer(nil)
	s.clock.Advance(refusedFor)
	if req := s.present("Bearer "+raw, nil); req.Identity.Nobody() {
		t.Error(req.Credential.Problem)
	}
	asked := i.asked
	s.refuses(s.accessToken(func(_, c map[string]any) { c["aud"] = "x" }), access.TokenAudience)
	if i.asked != asked {
		t.Error("asked about a token that is refused anyway")
	}
}

func TestOnlyOneProviderKnowsOpaqueTokens(t *testing.T) {
	s := world(t, nil)
	for range 2 {
		p := corpProvider()
		p.ID = fmt.Sprint("p", len(s.options.Providers))
		p.Audiences, p.Introspection.Cache = []string{"a"}, access.Duration(time.Second)
		s.options.Providers = append(s.options.Providers, p)
	}
	if _, err := New(s.options); err == nil || !strings.Contains(err.Error(), "both have introspection") {
		t.Error(err)
	}
}
