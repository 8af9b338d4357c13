package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// holder is a client with a key of its own.
type holder struct {
	*stage
	key        *ecdsa.PrivateKey
	public     publicJWK
	thumbprint string
	made       int
}

func (s *stage) holder() *holder {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	public, err := newPublicJWK(&key.PublicKey)
	if err != nil {
		s.Fatal(err)
	}
	return &holder{stage: s, key: key, public: public, thumbprint: public.thumbprint()}
}

// bound returns an access token that only this holder can use.
func (h *holder) bound() string {
	return h.accessToken(func(_, c map[string]any) { c["cnf"] = map[string]any{"jkt": h.thumbprint} })
}

// prove makes a good proof for present's request, after a change.
func (h *holder) prove(raw string, change func(header, claims map[string]any)) string {
	h.Helper()
	h.made++
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"jti": fmt.Sprint("proof-", h.made), "htm": "GET", "htu": app + "/orders", "iat": h.clock.Now().Unix(), "ath": tokenHash(raw),
	})
	token.Header["typ"], token.Header["jwk"] = "dpop+jwt", h.public
	if change != nil {
		change(token.Header, token.Claims.(jwt.MapClaims))
	}
	signed, err := token.SignedString(h.key)
	if err != nil {
		h.Fatal(err)
	}
	return signed
}

func dpop(proofs ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header["Dpop"] = proofs }
}

func TestKeyBoundTokens(t *testing.T) {
	s := world(t, withTokens)
	h := s.holder()
	raw := h.bound()
	if req := s.present("DPoP "+raw, dpop(h.prove(raw, nil))); req.Identity.User() != "corp:batch" || req.Credential.Scheme != "DPoP" {
		t.Fatalf("%+v", req.Credential)
	}
	for name, htu := range map[string]string{
		"default port and capitals": "HTTPS://App.Corp.Test:443/orders", "query and fragment": app + "/orders?x=1#y", "escapes": app + "/%6Frders",
	} {
		if req := s.present("DPoP "+raw, dpop(h.prove(raw, func(_, c map[string]any) { c["htu"] = htu }))); req.Identity.Nobody() {
			t.Errorf("%s: %+v", name, req.Credential)
		}
	}
	thief := s.holder()
	for name, c := range map[string]struct {
		scheme string
		proof  string
		want   access.Reason
	}{
		"as a bearer token":          {"Bearer", "", access.TokenBindingMismatch},
		"as a bearer, with a proof":  {"Bearer", h.prove(raw, nil), access.TokenBindingMismatch},
		"without a proof":            {"DPoP", "", access.ProofInvalid},
		"with the key of a thief":    {"DPoP", thief.prove(raw, nil), access.TokenBindingMismatch},
		"with the proof of another":  {"DPoP", h.prove("another token", nil), access.ProofInvalid},
		"with a proof that is a JWT": {"DPoP", raw, access.ProofInvalid},
	} {
		change := dpop(c.proof)
		if c.proof == "" {
			change = nil
		}
		if req := s.present(c.scheme+" "+raw, change); req.Credential.Problem != c.want {
			t.Errorf("%s: got %q, want %q", name, req.Credential.Problem, c.want)
		}
	}
	unbound := s.accessToken(nil)
	if req := s.present("DPoP "+unbound, dpop(h.prove(unbound, nil))); req.Credential.Problem != access.TokenBindingMismatch {
		t.Errorf("an unbound token with a proof: %+v", req.Credential)
	}
}

// The twelve checks of RFC 9449 §4.3.
func TestBadProofs(t *testing.T) {
	s := world(t, withTokens)
	h := s.holder()
	raw := h.bound()
	now := s.clock.Now().Unix()
	set := func(name string, value any) func(_, c map[string]any) {
		return func(_, c map[string]any) { c[name] = value }
	}
	head := func(name string, value any) func(h, _ map[string]any) {
		return func(h, _ map[string]any) { h[name] = value }
	}
	for name, change := range map[string]func(header, claims map[string]any){
		"no jti": set("jti", ""), "long jti": set("jti", strings.Repeat("x", 300)), "jti no string": set("jti", 1),
		"no htm": set("htm", nil), "other method": set("htm", "POST"), "small letters": set("htm", "get"),
		"no htu": set("htu", nil), "other host": set("htu", wiki+"/orders"), "other path": set("htu", app+"/order"),
		"other scheme": set("htu", "http://app.corp.test/orders"), "upstream's address": set("htu", "http://127.0.0.1:8080/orders"),
		"with a user": set("htu", "https://a@app.corp.test/orders"), "relative": set("htu", "/orders"),
		"no iat": set("iat", nil), "iat as text": set("iat", fmt.Sprint(now)), "old": set("iat", now-61), "of tomorrow": set("iat", now+31),
		"no ath": set("ath", nil), "other ath": set("ath", tokenHash("x")),
		"typ JWT": head("typ", "JWT"), "no typ": func(h, _ map[string]any) { delete(h, "typ") },
		"no jwk": func(h, _ map[string]any) { delete(h, "jwk") }, "crit": head("crit", []string{"x"}), "jku": head("jku", "https://evil.test"),
		"alg none": head("alg", "none"), "alg HS256": head("alg", "HS256"), "alg of another key": head("alg", "RS256"),
		"another's jwk": head("jwk", s.holder().public),
		"symmetric jwk": head("jwk", map[string]any{"kty": "oct", "k": "AAAA"}),
		"private jwk": head("jwk", map[string]any{
			"kty": "EC", "crv": "P-256", "x": h.public.X, "y": h.public.Y, "d": base64.RawURLEncoding.EncodeToString([]byte("secret"))}),
		"jwk for encryption": head("jwk", map[string]any{"kty": "EC", "crv": "P-256", "x": h.public.X, "y": h.public.Y, "use": "enc"}),
	} {
		if req := s.present("DPoP "+raw, dpop(h.prove(raw, change))); req.Credential.Problem != access.ProofInvalid {
			t.Errorf("%s: %+v", name, req.Credential)
		}
	}
	if req := s.present("DPoP "+raw, dpop(h.prove(raw, nil), h.prove(raw, nil))); req.Credential.Problem != access.ProofInvalid {
		t.Errorf("two proofs: %+v", req.Credential)
	}
	good := h.prove(raw, nil)
	if req := s.present("DPoP "+raw, dpop(good[:len(good)-4]+"AAAA")); req.Credential.Problem != access.ProofInvalid {
		t.Errorf("a forged proof: %+v", req.Credential)
	}
}

// A proof counts once, on any replica and after a reload.
func TestProofsCountOnce(t *testing.T) {
	s := world(t, withTokens)
	h := s.holder()
	raw := h.bound()
	proof := h.prove(raw, nil)
	wants := func(what string, want access.Reason) {
		t.Helper()
		if req := s.present("DPoP "+raw, dpop(proof)); req.Credential.Problem != want {
			t.Errorf("%s: got %q, want %q", what, req.Credential.Problem, want)
		}
	}
	wants("the first time", "")
	wants("the second time", access.ProofInvalid)
	s.options.Previous = s.auth
	s.reload()
	wants("after a reload", access.ProofInvalid)
	s.options.Previous = nil
	s.reload() // remembers nothing, as another replica
	wants("on another replica", access.ProofInvalid)
}

func TestProofsAreBounded(t *testing.T) {
	c := newClock()
	p := &proofs{now: c.Now, once: func(context.Context, string, string, time.Time, func() error) error { return nil }}
	spend := func(key string, i int) error {
		return p.spend(t.Context(), &proof{thumbprint: key, id: fmt.Sprint(i), issued: c.Now()})
	}
	for i := range maxSpentKey {
		if err := spend("a", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := spend("a", -1); access.ReasonOf(err) != access.ProofInvalid {
		t.Errorf("beyond what can be remembered: %v", err)
	}
	if err := spend("b", 1); err != nil {
		t.Errorf("one key takes the place of all: %v", err)
	}
	c.Advance(2 * proofLife)
	if err := spend("a", -1); err != nil {
		t.Errorf("what has ended is not forgotten: %v", err)
	}
	if len(p.spent) != 1 || len(p.count) != 1 {
		t.Errorf("%d proofs of %d keys", len(p.spent), len(p.count))
	}
	p.once = func(context.Context, string, string, time.Time, func() error) error { return errors.New("no store") }
	if err := spend("a", 7); access.ReasonOf(err) != access.StoreUnavailable {
		t.Errorf("without the store: %v", err)
	}
}
