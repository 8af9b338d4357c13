package signals

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

// What is no lawful security event of this transmitter for us is refused with the
// code that RFC 8935 gives it, and changes nothing.
func TestBadTokensAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	cookie := w.login(corp, "alice")
	w.stream()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	revoked := testidp.CAEP + "session-revoked"
	claims := func(change func(c map[string]any)) map[string]any {
		c := w.from.Claims(revoked, user(corp, "alice"), nil)
		if change != nil {
			change(c)
		}
		return c
	}
	signed := func(change func(c map[string]any)) string { return w.from.Sign(w.from.Header(), claims(change)) }
	header := func(name string, value any) string {
		h := w.from.Header()
		h[name] = value
		if value == nil {
			delete(h, name)
		}
		return w.from.Sign(h, claims(nil))
	}
	set := func(name string, value any) string {
		return signed(func(c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		})
	}
	good := signed(nil)
	parts := strings.Split(good, ".")
	encode := base64.RawURLEncoding.EncodeToString
	payload := func(text string) string { return parts[0] + "." + encode([]byte(text)) + "." + parts[2] }
	event := func(uri string, fields map[string]any) string {
		return w.from.Sign(w.from.Header(), w.from.Claims(uri, user(corp, "alice"), fields))
	}
	hmac := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims(nil)))
	hmac.Header["typ"], hmac.Header["kid"] = "secevent+jwt", w.from.Header()["kid"]
	byMAC, err := hmac.SignedString([]byte("public key"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims(claims(nil)))
	foreign.Header = w.from.Header()
	byStranger, err := foreign.SignedString(stranger)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, c := range map[string]struct{ raw, code string }{
		"nothing":                  {"", invalidRequest},
		"not a token":              {"hello", invalidRequest},
		"two parts":                {parts[0] + "." + parts[1], invalidRequest},
		"an encrypted token":       {good + ".a.b", invalidRequest},
		"no JSON":                  {parts[0] + "." + encode([]byte("{")) + "." + parts[2], invalidRequest},
		"a claim twice":            {payload(`{"iss":"` + w.from.Issuer + `","iss":"x"}`), invalidRequest},
		"typ JWT":                  {header("typ", "JWT"), invalidRequest},
		"typ logout+jwt":           {header("typ", "logout+jwt"), invalidRequest},
		"no typ":                   {header("typ", nil), invalidRequest},
		"typ is a list":            {header("typ", []string{"secevent+jwt"}), invalidRequest},
		"alg none":                 {encode([]byte(`{"typ":"secevent+jwt","alg":"none"}`)) + "." + parts[1] + ".", invalidKey},
		"HS256 with a public key":  {byMAC, invalidKey},
		"signed by a stranger":     {byStranger, invalidKey},
		"an unknown kid":           {header("kid", "nobody"), invalidKey},
		"an unknown critical part": {header("crit", []string{"x"}), invalidKey},
		"a key of its own":         {header("jwk", map[string]any{"kty": "RSA"}), invalidKey},
		"another payload":          {parts[0] + "." + strings.Split(signed(nil), ".")[1] + "." + parts[2], invalidKey},
		"another issuer":           {set("iss", "https://evil.test"), invalidIssuer},
		"no issuer":                {set("iss", nil), invalidIssuer},
		"another audience":         {set("aud", "https://other.test"), invalidAudience},
		"an empty audience":        {set("aud", []string{}), invalidAudience},
		"no audience":              {set("aud", nil), invalidAudience},
		"sub":                      {set("sub", "alice"), invalidRequest},
		"exp":                      {set("exp", now.Add(time.Hour).Unix()), invalidRequest},
		"nonce":                    {set("nonce", "n"), invalidRequest},
		"no jti":                   {set("jti", nil), invalidRequest},
		"a huge jti":               {set("jti", strings.Repeat("x", maxID+1)), invalidRequest},
		"no iat":                   {set("iat", nil), invalidRequest},
		"iat in the future":        {set("iat", now.Add(time.Hour).Unix()), invalidRequest},
		"iat long ago":             {set("iat", now.Add(-remembered-time.Hour).Unix()), invalidRequest},
		"iat is a text":            {set("iat", "now"), invalidRequest},
		"no events":                {set("events", nil), invalidRequest},
		"events is a list":         {set("events", []any{}), invalidRequest},
		"two events":               {set("events", map[string]any{revoked: map[string]any{}, testidp.CAEP + "session-presented": map[string]any{}}), invalidRequest},
		"an event that is a text":  {set("events", map[string]any{revoked: "x"}), invalidRequest},
		"no subject":               {set("sub_id", nil), invalidRequest},
		"a subject without format": {set("sub_id", map[string]any{"iss": corp, "sub": "alice"}), invalidRequest},
		"a subject without sub":    {set("sub_id", map[string]any{"format": "iss_sub", "iss": corp}), invalidRequest},
		"an empty sub":             {set("sub_id", user(corp, "")), invalidRequest},
		"sub is a number":          {set("sub_id", map[string]any{"format": "iss_sub", "iss": corp, "sub": 7}), invalidRequest},
		"a nested complex subject": {set("sub_id", complexSubject(map[string]any{"user": complexSubject(map[string]any{})})), invalidRequest},
		"aliases within aliases": {set("sub_id", map[string]any{"format": "aliases", "identifiers": []any{
			map[string]any{"format": "aliases", "identifiers": []any{user(corp, "alice")}}}}), invalidRequest},
		"a member that is a text":     {set("sub_id", complexSubject(map[string]any{"user": "alice"})), invalidRequest},
		"an event in the future":      {event(revoked, map[string]any{"event_timestamp": now.Add(time.Hour).Unix()}), invalidRequest},
		"a time that is a text":       {event(revoked, map[string]any{"event_timestamp": "now"}), invalidRequest},
		"no claims that change":       {event(testidp.CAEP+"token-claims-change", nil), invalidRequest},
		"an unknown change":           {event(testidp.CAEP+"credential-change", map[string]any{"credential_type": "pin", "change_type": "eaten"}), invalidRequest},
		"an unknown compliance":       {event(testidp.CAEP+"device-compliance-change", map[string]any{"current_status": "maybe"}), invalidRequest},
		"an unknown risk":             {event(testidp.CAEP+"risk-level-change", map[string]any{"principal": "USER", "current_level": "EXTREME"}), invalidRequest},
		"a risk of nobody":            {event(testidp.CAEP+"risk-level-change", map[string]any{"current_level": "HIGH"}), invalidRequest},
		"a verification nobody asked": {w.from.Sign(w.from.Header(), w.from.Claims(testidp.SSF+"verification", opaque(w.receiver.Status()[0].Stream), map[string]any{"state": "guess"})), invalidState},
		"another stream":              {w.from.Sign(w.from.Header(), w.from.Claims(testidp.SSF+"verification", opaque("other"), nil)), invalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			status, said, err := testidp.Push(t.Context(), w.door.URL, secret, c.raw)
			if err != nil || status != 400 || said["err"] != c.code || said["description"] == "" {
				t.Errorf("%d %v, %v; want %s", status, said, err, c.code)
			}
			if w.who(cookie) == nil {
				t.Fatal("it logged alice out")
			}
		})
	}
	if status, said, err := testidp.Push(t.Context(), w.door.URL, secret, good); err != nil || status != 202 {
		t.Fatalf("the good one: %d %v, %v", status, said, err)
	}
	if w.who(cookie) != nil {
		t.Error("the good one did nothing")
	}
}

// Whoever does not bring the agreed header is not listened to at all.
func TestPushNeedsTheAgreedHeader(t *testing.T) {
	w := newWorld(t, nil)
	cookie := w.login(corp, "alice")
	w.stream()
	raw := w.from.Sign(w.from.Header(), w.from.Claims(testidp.CAEP+"session-revoked", user(corp, "alice"), nil))
	for _, header := range []string{"", "Bearer other", secret + "x", strings.ToLower(secret)} {
		if status, said, err := testidp.Push(t.Context(), w.door.URL, header, raw); status != 400 || said["err"] != authenticationFailed {
			t.Errorf("%q: %d %v %v", header, status, said, err)
		}
	}
	if w.who(cookie) == nil {
		t.Error("logged out")
	}
}

// The same token twice is answered like the first time and does nothing more.
func TestRepeatedTokensAreHarmless(t *testing.T) {
	w := newWorld(t, nil)
	w.login(corp, "alice")
	w.stream()
	raw := w.from.Sign(w.from.Header(), w.from.Claims(testidp.CAEP+"session-revoked", user(corp, "alice"), nil))
	for range 3 {
		if status, _, err := testidp.Push(t.Context(), w.door.URL, secret, raw); status != 202 {
			t.Fatalf("%d %v", status, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Reason == access.SignalApplied {
			n++
		}
	}
	if n != 1 {
		t.Errorf("carried out %d times", n)
	}
}

// Nobody's word is enough to make us fetch keys all the time, and while the keys
// are not known an event is not lost but asked for again.
func TestKeysAreNotKnown(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.cfg.Token, w.cfg.Audience = access.Secret{}, audience // set up by hand
		w.from.Fault = func(path string) int {
			if strings.HasSuffix(path, "/jwks") {
				return 503
			}
			return 0
		}
	})
	raw := w.from.Sign(w.from.Header(), w.from.Claims(testidp.CAEP+"session-revoked", user(corp, "alice"), nil))
	for range 50 {
		if status, _, err := testidp.Push(t.Context(), w.door.URL, secret, raw); status != 503 {
			t.Fatalf("%d %v", status, err)
		}
	}
	if n := w.from.Requests("/tenant/jwks"); n > 3 {
		t.Errorf("%d fetches", n)
	}
}

func FuzzSecurityEvent(f *testing.F) {
	for _, seed := range []string{
		`{"format":"iss_sub","iss":"a","sub":"b"}`, `{"format":"complex","user":{"format":"opaque","id":"x"}}`,
		`{"format":"aliases","identifiers":[{"format":"email","email":"a@b"}]}`, `{"format":"complex","tenant":{"format":"opaque","id":""}}`,
	} {
		f.Add(seed, "session-revoked", `{"event_timestamp":1}`)
		f.Add(seed, "risk-level-change", `{"principal":"DEVICE","current_level":"HIGH","reason_admin":{"de":"\u001b"}}`)
	}
	f.Fuzz(func(t *testing.T, about, kind, fields string) {
		claims, err := jose.ParseObject([]byte(`{"iat":1,"sub_id":` + about + `,"events":{"` + caep + kind + `":` + fields + `}}`))
		if err != nil {
			return
		}
		e, err := parseEvent(maps.Clone(claims))
		if err != nil || e == nil {
			return
		}
		if strings.ContainsFunc(e.why, func(r rune) bool { return r < ' ' }) || len(e.why) > maxReason+4 {
			t.Fatalf("%q", e.why)
		}
		tr := &transmitter{issuers: map[string]string{corp: "corp"}}
		for _, m := range tr.matches(&e.subject) {
			if m.Issuer != "" && m.Issuer != corp {
				t.Fatalf("%+v is about somebody of another issuer", m)
			}
		}
	})
}

func TestRefusalsCarryTheirCause(t *testing.T) {
	err := error(refuse(invalidKey, "wrapped: %w", context.Canceled))
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), invalidKey) {
		t.Error(err)
	}
}
