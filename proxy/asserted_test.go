package proxy

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/store"
)

// An assertion counts for the one audience it was made for, as long as it is
// good, and only if nothing about it was changed.
func TestOnlyOurOwnAssertionsCount(t *testing.T) {
	c := &clock{epoch}
	kept := store.NewMemory(c.Now)
	s, replica, stranger := signerAt(t, c, kept, 1), signerAt(t, c, kept, 1), signerAt(t, c, store.NewMemory(c.Now), 2)
	const issuer, audience = "https://auth.example", "https://app.example"
	token, err := s.assert(t.Context(), "", issuer, audience, request(c), []string{"admins"})
	if err != nil {
		t.Fatal(err)
	}
	for _, verifier := range []*Signer{s, replica} {
		got, err := verifier.Verify(t.Context(), token, issuer, audience)
		if err != nil || got.User != "corp:alice" || len(got.Groups) != 1 || got.Groups[0] != "admins" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	ring, err := s.keys(t.Context(), c.now)
	if err != nil {
		t.Fatal(err)
	}
	key := ring.keys[ring.period]
	// forge signs with our key what assert never would.
	forge := func(method jwt.SigningMethod, with any, header map[string]any, edit func(*claims)) string {
		said := claims{Issuer: issuer, Audience: audience, Subject: "corp:alice", Provider: "corp", IssuedAt: c.now.Unix(), Expires: c.now.Add(time.Minute).Unix()}
		edit(&said)
		tok := jwt.NewWithClaims(method, jwt.MapClaims{"iss": said.Issuer, "aud": said.Audience, "sub": said.Subject, "idp": said.Provider, "iat": said.IssuedAt, "exp": said.Expires})
		tok.Header = map[string]any{"alg": method.Alg(), "typ": "JWT", "kid": key.public.ID}
		for name, value := range header {
			tok.Header[name] = value
		}
		text, err := tok.SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	same := func(*claims) {}
	if _, err := s.Verify(t.Context(), forge(jwt.SigningMethodES256, key.private, nil, same), issuer, audience); err != nil {
		t.Fatalf("what is forged below differs in nothing else: %v", err)
	}
	parts := strings.Split(token, ".")
	foreign, _ := stranger.assert(t.Context(), "", issuer, audience, request(c), nil)
	for name, wrong := range map[string]string{
		"empty": "", "half": parts[0] + "." + parts[1], "no signature": parts[0] + "." + parts[1] + ".",
		"padded signature": token + "=", "another payload": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + "." + parts[2],
		"another store":        foreign,
		"alg none":             forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, same),
		"the key as a secret":  forge(jwt.SigningMethodHS256, []byte(key.public.X), nil, same),
		"typ of something":     forge(jwt.SigningMethodES256, key.private, map[string]any{"typ": "at+jwt"}, same),
		"a key of its own":     forge(jwt.SigningMethodES256, key.private, map[string]any{"jwk": "x"}, same),
		"a key we do not have": forge(jwt.SigningMethodES256, key.private, map[string]any{"kid": "x"}, same),
		"critical extension":   forge(jwt.SigningMethodES256, key.private, map[string]any{"crit": []string{"b64"}}, same),
		"another issuer":       forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Issuer = audience }),
		"another audience":     forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Audience += ":8443" }),
		"a longer life":        forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Expires += 3600 }),
		"from the future": forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) {
			c.IssuedAt += 120
			c.Expires += 120
		}),
		"expired":          forge(jwt.SigningMethodES256, key.private, nil, func(cl *claims) { cl.Expires = c.now.Unix() }),
		"about nobody":     forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Subject = "" }),
		"half a subject":   forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Subject = "corp:" }),
		"of no provider":   forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Provider, c.Subject = "", ":alice" }),
		"another's prefix": forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Subject = "corporate:alice" }),
		"beyond measure":   token + strings.Repeat("x", maxAsserted),
	} {
		if got, err := s.Verify(t.Context(), wrong, issuer, audience); err == nil || got.User != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, expected := range [][2]string{{"", audience}, {issuer, ""}, {"", ""}} {
		if _, err := s.Verify(t.Context(), forge(jwt.SigningMethodES256, key.private, nil, func(c *claims) { c.Issuer, c.Audience = expected[0], expected[1] }), expected[0], expected[1]); err == nil {
			t.Errorf("accepted for %q", expected)
		}
	}
	c.now = epoch.Add(assertionLifetime)
	if _, err := s.Verify(t.Context(), token, issuer, audience); err == nil {
		t.Error("accepted after its end")
	}
}
