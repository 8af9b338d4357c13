package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// verify checks an assertion as an upstream would, with nothing but the
// published keys.
func verify(t *testing.T, jwks, token, audience string, now time.Time) jwt.MapClaims {
	t.Helper()
	var set struct {
		Keys []struct{ Kty, Crv, X, Y, Kid, Use, Alg string }
	}
	if err := json.Unmarshal([]byte(jwks), &set); err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(tok *jwt.Token) (any, error) {
		if tok.Header["typ"] != "JWT" {
			return nil, fmt.Errorf("typ %v", tok.Header["typ"])
		}
		for _, key := range set.Keys {
			if key.Kid == tok.Header["kid"] && key.Kty == "EC" && key.Crv == "P-256" && key.Alg == "ES256" && key.Use == "sig" {
				x, _ := base64.RawURLEncoding.DecodeString(key.X)
				y, _ := base64.RawURLEncoding.DecodeString(key.Y)
				return &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(x), Y: new(big.Int).SetBytes(y)}, nil
			}
		}
		return nil, fmt.Errorf("no key %v in %s", tok.Header["kid"], jwks)
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(2*time.Second))
	if err != nil {
		t.Fatalf("%v: %s", err, token)
	}
	return claims
}

func TestUpstreamLearnsWhoTheVisitorIs(t *testing.T) {
	route := routeTo("http://app.example", newEcho(t))
	route.Headers = map[string]string{"X-Forwarded-User": "user", "X-Sub": "sub", "X-Forwarded-Email": "email", "X-Name": "name", "X-Groups": "groups",
		"X-Provider": "provider", "X-Device": "device", "X-Dept": "claim.dept", "X-Many": "claim.many", "X-None": "claim.none", "X-Username": "username"}
	w := newWorld(t, []access.Route{route})
	_, body := w.ask("GET", "http://app.example/x", "Cookie", "theme=dark; doorward=alice; lang=de", "X-None", "spoof", "X-Username", "spoof")
	saw := decode(t, body).Header
	for name, want := range map[string]string{"X-Forwarded-User": "corp:alice", "X-Sub": "alice", "X-Forwarded-Email": "alice@corp.example",
		"X-Name": "%C3%84nne O'Neil", "X-Groups": "eng", "X-Provider": "corp", "X-Device": "laptop-7", "X-Dept": "R&D", "X-Many": "a,b%2Cc",
		"X-None": "", "X-Username": "", "Cookie": "theme=dark; lang=de", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "app.example", "X-Forwarded-For": "127.0.0.1"} {
		if got := strings.Join(saw[name], "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if saw.Get("X-Request-Id") != w.rec.event(t).Request.ID {
		t.Error("the upstream cannot be traced to the record")
	}
	_, keys := w.ask("GET", "http://app.example/.doorward/jwks.json")
	claims := verify(t, keys, saw.Get("Doorward-Assertion"), "http://app.example", time.Now())
	exp, _ := claims.GetExpirationTime()
	iat, _ := claims.GetIssuedAt()
	if exp.Sub(iat.Time) > 5*time.Minute || exp.Sub(iat.Time) < time.Second {
		t.Errorf("valid for %v", exp.Sub(iat.Time))
	}
	delete(claims, "exp")
	delete(claims, "iat")
	want := `map[acr:phr amr:[hwk] aud:http://app.example auth_time:1.79543514e+09 device:map[id:laptop-7] email:alice@corp.example groups:[eng] idp:corp iss:http://app.example name:Änne O'Neil sub:corp:alice]`
	if got := fmt.Sprint(claims); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if strings.Contains(body, "doorward=") {
		t.Error("our cookie was forwarded")
	}
}

func TestPublicRequestsCarryNoIdentity(t *testing.T) {
	route := routeTo("http://app.example", newEcho(t))
	route.Headers = map[string]string{"X-Forwarded-User": "user"}
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	_, body := w.ask("GET", "http://app.example/", "Doorward-Assertion", "x", "X-Forwarded-User", "root")
	for _, name := range []string{"Doorward-Assertion", "X-Forwarded-User"} {
		if values, ok := decode(t, body).Header[name]; ok {
			t.Errorf("%s: %q", name, values)
		}
	}
}

func TestTheLoginHostIsTheIssuer(t *testing.T) {
	route := routeTo("http://*.apps.example", newEcho(t))
	w := newWorld(t, []access.Route{route}, withServer(func(c *Config) { c.AuthURL = "http://auth.example:8080/" }))
	_, body := w.ask("GET", "http://one.apps.example/", "Cookie", asAlice)
	_, keys := w.ask("GET", "http://auth.example:8080/.doorward/jwks.json")
	claims := verify(t, keys, decode(t, body).Header.Get("Doorward-Assertion"), "http://one.apps.example", time.Now())
	if claims["iss"] != "http://auth.example:8080" {
		t.Error(claims)
	}
}

func TestNothingIsForwardedThatCannotBeRecorded(t *testing.T) {
	asked := make(chan bool, 1)
	up := upstreamOf(t, func(http.ResponseWriter, *http.Request) { asked <- true })
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, func(w *world) {
		w.snapshot.AuditRequired, w.rec.err = true, errors.New("disk full")
	})
	res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice)
	if e := w.rec.event(t); res.StatusCode != 503 || e.Response.Reason != access.AuditUnavailable || len(asked) != 0 {
		t.Errorf("%s %+v", res.Status, e.Response)
	}
}

func TestHeaderValuesCannotEndTheHeader(t *testing.T) {
	for in, want := range map[string]string{
		"plain text": "plain text", "a\r\nX-Admin: 1": "a%0D%0AX-Admin: 1", "50%": "50%25", "ä": "%C3%A4", " x ": "%20x%20", "\x00\x7f": "%00%7F", "": "", " ": "%20",
	} {
		if got := headerText(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	long := strings.Repeat("x", maxHeaderValue+1)
	rule, _ := newHeaderRule("X", "claim.x")
	req := &access.Request{Identity: access.Identity{Provider: "p", Issuer: "i", Subject: "s", Claims: map[string]any{"x": long}}}
	if rule.value(req, nil) != "" {
		t.Error("half a value is a wrong value")
	}
	for _, claim := range []any{map[string]any{"a": 1}, nil, []any{1.5}} {
		if got := claimText(claim); got != "" {
			t.Errorf("%v: %q", claim, got)
		}
	}
	if claimText(1.5) != "1.5" || claimText(true) != "true" || claimText([]string{"a", "b"}) != "a,b" {
		t.Error("simple claims have a simple form")
	}
}

func FuzzHeaderText(f *testing.F) {
	f.Add("Änne\r\n")
	f.Add("50% ")
	f.Fuzz(func(t *testing.T, s string) {
		got := headerText(s)
		if back, err := url.PathUnescape(got); err != nil || back != s {
			t.Fatalf("%q: %q reads as %q, %v", s, got, back, err)
		}
		if strings.TrimSpace(got) != got || strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q: %q", s, got)
		}
	})
}

// clock is a settable time.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func signerAt(t testing.TB, c *clock, s store.Store, key byte) *Signer {
	t.Helper()
	signer, err := NewSigner(t.Context(), SignerOptions{Store: s, Key: slices.Repeat([]byte{key}, 32), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func request(c *clock) *access.Request {
	return &access.Request{Time: c.now, Scheme: "https", Host: "app.example", Route: "app",
		Identity: access.Identity{Provider: "corp", Issuer: "https://idp", Subject: "alice"},
		Session:  access.Session{ID: "s1", Expires: c.now.Add(10 * time.Hour)}}
}

func TestAssertionsAreReusedForHalfTheirLife(t *testing.T) {
	c := &clock{epoch}
	s := signerAt(t, c, store.NewMemory(c.Now), 1)
	sign := func(edit func(*access.Request), groups ...string) string {
		req := request(c)
		req.Session.Expires = epoch.Add(10 * time.Hour)
		edit(req)
		token, err := s.assert(t.Context(), "", "https://auth.example", req.Origin(), req, groups)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	same := func(*access.Request) {}
	first := sign(same, "eng")
	c.now = epoch.Add(149 * time.Second)
	if sign(same, "eng") != first {
		t.Error("signed again within half its life")
	}
	c.now = epoch.Add(151 * time.Second)
	if sign(same, "eng") == first {
		t.Error("an old one was handed out")
	}
	// Every fact in it has to be the visitor's present one.
	base := sign(same, "eng")
	for name, edit := range map[string]func(*access.Request){
		"session": func(r *access.Request) { r.Session.ID = "s2" },
		"end":     func(r *access.Request) { r.Session.Expires = epoch.Add(time.Hour) },
		"host":    func(r *access.Request) { r.Host = "other.example" },
		"subject": func(r *access.Request) { r.Identity.Subject = "bob" },
		"email":   func(r *access.Request) { r.Identity.Email = "a@x" },
		"acr":     func(r *access.Request) { r.Identity.Login.ACR = "phr" },
		"amr":     func(r *access.Request) { r.Identity.Login.AMR = []string{"otp"} },
		"auth":    func(r *access.Request) { r.Identity.Login.Time = epoch },
		"device":  func(r *access.Request) { r.Device.ID = "d" },
		"name":    func(r *access.Request) { r.Identity.Name = "A" },
	} {
		if sign(edit, "eng") == base {
			t.Errorf("another %s gets the same assertion", name)
		}
	}
	if sign(same, "eng", "finance") == base || sign(same) == base {
		t.Error("other groups get the same assertion")
	}
}

// Assertions are found by a hash. Where two share one, neither gets the other's,
// though everything it says were the same.
func TestAssertionsWithTheSameHash(t *testing.T) {
	c := &clock{epoch}
	s := signerAt(t, c, store.NewMemory(c.Now), 1)
	assert := func(session string) string {
		req := request(c)
		req.Session.ID = session
		token, err := s.assert(t.Context(), "", "https://auth.example", req.Origin(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	first, second := assert("s1"), assert("s2")
	if hashes := s.cache.Keys(); len(hashes) != 2 { // the older one comes first
		t.Fatalf("%d assertions of two sessions", len(hashes))
	} else {
		of, _ := s.cache.Peek(hashes[0])
		s.cache.Add(hashes[1], of)
	}
	if token := assert("s2"); token == first || token == second {
		t.Error("a session got the assertion of another")
	}
	if assert("s1") != first {
		t.Error("signed again without need")
	}
}

// What is kept with a session is used for what it says and for nothing else, also
// where somebody has changed the request meanwhile; and a session with several
// routes needs none of them signed twice.
func TestAssertionsKeptWithTheSession(t *testing.T) {
	c := &clock{epoch}
	memory := store.NewMemory(c.Now)
	s := signerAt(t, c, memory, 1)
	kept := &access.Kept{Of: &request(c).Identity}
	assert := func(by *Signer, form string, edit func(*access.Request)) string {
		t.Helper()
		req := request(c)
		req.Session.Expires, req.Session.Kept = epoch.Add(10*time.Hour), kept
		edit(req)
		token, err := by.assert(t.Context(), form, "https://auth.example", req.Origin(), req, []string{"eng"})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	seen := map[string]string{}
	edits := map[string]func(*access.Request){
		"nothing": func(*access.Request) {},
		"route":   func(r *access.Request) { r.Route = "other" },
		"host":    func(r *access.Request) { r.Host = "other.example" },
		"session": func(r *access.Request) { r.Session.ID = "s2" },
		"subject": func(r *access.Request) { r.Identity.Subject = "bob" },
		"email":   func(r *access.Request) { r.Identity.Email = "a@x" },
		"end":     func(r *access.Request) { r.Session.Expires = epoch.Add(time.Hour) },
		"device":  func(r *access.Request) { r.Device.ID = "d" },
	}
	for name, edit := range edits {
		for _, form := range []string{"", "iap"} {
			token := assert(s, form, edit)
			if other, ok := seen[token]; ok {
				t.Errorf("%s %s gets the assertion of %s", name, form, other)
			}
			seen[token] = name + " " + form
		}
	}
	again := map[string]string{}
	for _, name := range []string{"nothing", "route", "host", "route", "nothing", "host"} {
		token := assert(s, "", edits[name])
		if have, ok := again[name]; ok && have != token {
			t.Errorf("%s: signed again without need", name)
		}
		again[name], seen[token] = token, name+" "
	}
	if token := assert(signerAt(t, c, memory, 1), "", edits["nothing"]); seen[token] != "" {
		t.Error("a signer has handed out what another one signed")
	}
	c.now = epoch.Add(151 * time.Second)
	fresh := assert(s, "", edits["nothing"])
	if seen[fresh] != "" || assert(s, "", edits["nothing"]) != fresh {
		t.Error("an old one was handed out, or the new one was not kept")
	}
}

func TestAssertionEndsWithTheSession(t *testing.T) {
	c := &clock{epoch}
	s := signerAt(t, c, store.NewMemory(c.Now), 1)
	req := request(c)
	req.Session.Expires = epoch.Add(10 * time.Second)
	token, err := s.assert(t.Context(), "", "https://auth.example", req.Origin(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := s.JWKS(t.Context())
	exp, _ := verify(t, string(keys), token, "https://app.example", epoch).GetExpirationTime()
	if !exp.Equal(epoch.Add(10 * time.Second)) {
		t.Error(exp)
	}
}

func TestKeysRotateAndStayVerifiable(t *testing.T) {
	c := &clock{epoch}
	kept := store.NewMemory(c.Now)
	a, b := signerAt(t, c, kept, 1), signerAt(t, c, kept, 1)
	kids := map[any]bool{}
	for day := range 5 {
		c.now = epoch.Add(time.Duration(day) * 24 * time.Hour)
		before, _ := b.JWKS(t.Context()) // the other replica published it
		token, err := a.assert(t.Context(), "", "https://auth.example", request(c).Origin(), request(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, string(before), token, "https://app.example", c.now)
		tok, _, _ := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
		kids[tok.Header["kid"]] = true
		// A verifier that read the keys before the change still verifies after.
		c.now = c.now.Add(23*time.Hour + 59*time.Minute)
		token, _ = a.assert(t.Context(), "", "https://auth.example", request(c).Origin(), request(c), nil)
		verify(t, string(before), token, "https://app.example", c.now)
		if n := strings.Count(string(before), `"kid"`); n > 3 {
			t.Errorf("day %d: %d keys", day, n)
		}
	}
	if len(kids) < 4 {
		t.Errorf("%d keys in five days", len(kids))
	}
	for item, err := range kept.List(t.Context(), "assertion-key/") {
		if err != nil || strings.Contains(string(item.Value), "PRIVATE") || item.Expires.IsZero() {
			t.Errorf("%s %v", item.Key, err)
		}
	}
}

// failing is a store that can be made to fail.
type failing struct {
	store.Store
	err error
}

func (f *failing) Get(ctx context.Context, key string) (store.Item, error) {
	if f.err != nil {
		return store.Item{}, f.err
	}
	return f.Store.Get(ctx, key)
}

func TestKeysOutliveAnOutageOfTheStore(t *testing.T) {
	c := &clock{epoch}
	kept := &failing{Store: store.NewMemory(c.Now)}
	s := signerAt(t, c, kept, 1)
	kept.err = store.ErrUnavailable
	c.now = epoch.Add(24 * time.Hour)
	if _, err := s.assert(t.Context(), "", "https://auth.example", request(c).Origin(), request(c), nil); err != nil {
		t.Errorf("the key for today was known yesterday: %v", err)
	}
	c.now = epoch.Add(72 * time.Hour)
	if _, err := s.assert(t.Context(), "", "https://auth.example", request(c).Origin(), request(c), nil); err == nil {
		t.Error("signed with a key nobody will look for")
	}
	kept.err = nil
	c.now = c.now.Add(2 * time.Minute)
	if _, err := s.assert(t.Context(), "", "https://auth.example", request(c).Origin(), request(c), nil); err != nil {
		t.Error(err)
	}
}

func TestKeysSealedByAnotherMasterKeyAreReplaced(t *testing.T) {
	c := &clock{epoch}
	kept := store.NewMemory(c.Now)
	a, b := signerAt(t, c, kept, 1), signerAt(t, c, kept, 2)
	keysA, _ := a.JWKS(t.Context())
	keysB, _ := b.JWKS(t.Context())
	if string(keysA) == string(keysB) {
		t.Error("the store alone opens the keys")
	}
	if _, err := NewSigner(t.Context(), SignerOptions{Store: kept, Key: []byte("short"), Now: c.Now}); err == nil {
		t.Error("a short key was accepted")
	}
}

// Every replica must publish the key that any of them signs with.
func TestReplicasThatStartTogetherAgreeOnTheKey(t *testing.T) {
	c := &clock{epoch}
	kept := store.NewMemory(c.Now)
	sets := make(chan string, 8)
	for range 8 {
		go func() {
			s, err := NewSigner(context.Background(), SignerOptions{Store: kept, Key: make([]byte, 32), Now: c.Now})
			if err != nil {
				sets <- err.Error()
				return
			}
			keys, _ := s.JWKS(context.Background())
			sets <- string(keys)
		}()
	}
	first := <-sets
	for range 7 {
		if other := <-sets; other != first {
			t.Errorf("%s\n%s", first, other)
		}
	}
}
