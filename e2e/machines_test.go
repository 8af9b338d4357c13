package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/testidp"
)

// machineRoom is a doorward with a route that names machines, and whoever
// issues tokens to them: a provider of signed tokens, one of opaque tokens, and
// a Kubernetes cluster.
type machineRoom struct {
	*visitor
	base   string
	signer *testidp.Provider // of the provider services and the cluster
	issuer string

	mu     sync.Mutex
	opaque map[string]bool // active or not
}

const clusterIssuer = "https://kubernetes.default.svc.cluster.local"

func startMachineRoom(t *testing.T) *machineRoom {
	t.Helper()
	m := &machineRoom{visitor: newVisitor(t), opaque: map[string]bool{}}
	m.header = nil
	serve := func(h http.HandlerFunc) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	newProvider := func(issuer string) *testidp.Provider {
		p, err := testidp.New(testidp.Options{Issuer: issuer, Algorithms: []string{"ES256"}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	m.issuer = serve(func(w http.ResponseWriter, r *http.Request) { m.signer.ServeHTTP(w, r) })
	m.signer = newProvider(m.issuer)
	opaque := serve(m.introspect)
	cluster := serve(m.cluster)
	app := serve(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, secrets: %q", r.Header.Get("X-User"), r.Header["Authorization"])
	})

	addr := freeAddress(t)
	m.base = "http://" + strings.Replace(addr, "127.0.0.1", "api.localhost", 1)
	token := writeFile(t, t.TempDir(), "token", "the door's own")
	startSite(t, addr, fmt.Sprintf(`
  - {id: services, issuer: %q, interactive: false, audiences: [orders-api]}
  - {id: opaque, issuer: %q, client_id: doorward, client_secret: {file: %q}, interactive: false, audiences: [orders-api], introspection: {cache: 1s}}
  - {id: ci, issuer: kubernetes, audiences: [doorward], kubernetes: {api: %q, token_file: %q}}`,
		m.issuer, opaque, token, cluster, token), fmt.Sprintf(`
  - id: orders
    from: %q
    to: [%q]
    headers: {X-User: user}
    public: [{name: health, methods: [GET], paths: [/health]}]
    allow:
      - {name: batch, client_ids: ["services:batch", "opaque:batch"], scopes: [orders.read]}
      - {name: builds, providers: [ci], service_accounts: [build/runner]}
      - {name: people, any_user: true}`, m.base, app))
	return m
}

// introspect is the provider of opaque tokens (RFC 7662).
func (m *machineRoom) introspect(w http.ResponseWriter, r *http.Request) {
	issuer := "http://" + r.Host
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": issuer + "/jwks", "introspection_endpoint": issuer + "/introspect"})
	case "/jwks":
		m.signer.ServeHTTP(w, r)
	case "/introspect":
		m.mu.Lock()
		active := m.opaque[r.PostFormValue("token")]
		m.mu.Unlock()
		if !active {
			fmt.Fprint(w, `{"active":false}`)
			return
		}
		fmt.Fprint(w, `{"active":true,"token_type":"Bearer","aud":"orders-api","client_id":"batch","scope":"orders.read"}`)
	}
}

// set makes an opaque token active, or revokes it.
func (m *machineRoom) set(token string, active bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opaque[token] = active
}

// cluster is as much of an API server as is asked.
func (m *machineRoom) cluster(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Authorization") != "Bearer the door's own":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": clusterIssuer})
	case r.URL.Path == "/openid/v1/jwks":
		r.URL.Path = "/jwks"
		m.signer.ServeHTTP(w, r)
	}
}

// token signs an access token for the batch client after a change.
func (m *machineRoom) token(change func(header, claims map[string]any)) string {
	m.t.Helper()
	now := time.Now().Unix()
	header := m.signer.Header()
	header["typ"] = "at+jwt"
	claims := map[string]any{"iss": m.issuer, "sub": "batch", "client_id": "batch", "aud": "orders-api", "scope": "orders.read",
		"jti": rand.Text(), "iat": now, "exp": now + 600}
	if change != nil {
		change(header, claims)
	}
	signed, err := m.signer.Sign(header, claims)
	if err != nil {
		m.t.Fatal(err)
	}
	return signed
}

// call sends a request as curl would.
func (m *machineRoom) call(path, authorization string, more ...string) page {
	m.t.Helper()
	header := http.Header{}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	for _, proof := range more {
		header.Add("DPoP", proof)
	}
	return m.once("GET", m.base+path, header, nil)
}

// refused wants a 401 that says why, to people and in the terms of RFC 6750.
func (m *machineRoom) refused(p page, reason, challenge string) {
	m.t.Helper()
	var problem struct {
		Reason string `json:"reason"`
	}
	p.json(m.t, &problem)
	if got := p.header.Get("WWW-Authenticate"); p.status != 401 || problem.Reason != reason || !strings.Contains(got, challenge) {
		m.t.Errorf("%d %q %s; want %s, %s", p.status, got, p.body, reason, challenge)
	}
}

// Machines reach the route that names them, with any credential they may have,
// and the application sees who they are but not their token.
func TestMachinesReachTheRouteThatNamesThem(t *testing.T) {
	m := startMachineRoom(t)
	m.call("/", "Bearer "+m.token(nil)).says(t, 200, "hello services:batch, secrets: []")

	m.set("an-opaque-token", true)
	m.call("/", "Bearer an-opaque-token").says(t, 200, "hello opaque:batch, secrets: []")

	pod := m.token(func(h, c map[string]any) {
		delete(h, "typ")
		c["iss"], c["aud"], c["sub"] = clusterIssuer, []string{"doorward"}, "system:serviceaccount:build:runner"
	})
	m.call("/", "Bearer "+pod).says(t, 200, "hello ci:system:serviceaccount:build:runner, secrets: []")

	key := newDPoPKey(t)
	bound := m.token(func(_, c map[string]any) { c["cnf"] = map[string]any{"jkt": key.thumbprint()} })
	m.call("/", "DPoP "+bound, key.proof(m.base+"/", bound)).says(t, 200, "hello services:batch, secrets: []")

	// A machine is not a person, and a token without the scope is not enough.
	other := m.token(func(_, c map[string]any) { c["sub"], c["client_id"] = "other", "other" })
	if p := m.call("/", "Bearer "+other); p.status != 403 || !strings.Contains(p.body, "not_allowed") {
		t.Errorf("any_user let a machine in: %d %s", p.status, p.body)
	}
	if p := m.call("/", "Bearer "+m.token(func(_, c map[string]any) { delete(c, "scope") })); p.status != 403 {
		t.Errorf("without the scope: %d %s", p.status, p.body)
	}
}

// Every bad token is refused for its own reason; only public addresses are open
// to whoever sends it.
func TestBadTokensSayWhy(t *testing.T) {
	m := startMachineRoom(t)
	const invalid = `Bearer realm="doorward", error="invalid_token"`
	for reason, change := range map[string]func(h, c map[string]any){
		"token_audience":         func(_, c map[string]any) { c["aud"] = "another-api" },
		"token_expired":          func(_, c map[string]any) { c["exp"] = time.Now().Unix() - 1 },
		"token_invalid":          func(_, c map[string]any) { delete(c, "exp") },
		"token_binding_mismatch": func(_, c map[string]any) { c["cnf"] = map[string]any{"jkt": newDPoPKey(t).thumbprint()} },
	} {
		m.refused(m.call("/", "Bearer "+m.token(change)), reason, invalid)
	}
	idToken := func(h, c map[string]any) { h["typ"], c["nonce"] = "JWT", "n" }
	logoutToken := func(h, c map[string]any) {
		h["typ"] = "logout+jwt"
		c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}
	}
	m.refused(m.call("/", "Bearer "+m.token(idToken)), "token_not_access_token", invalid)
	m.refused(m.call("/", "Bearer "+m.token(logoutToken)), "token_not_access_token", invalid)
	m.refused(m.call("/.doorward/me", "Bearer "+m.token(idToken)), "token_not_access_token", invalid)
	m.refused(m.call("/", "Bearer never-heard-of"), "token_revoked", invalid)
	m.refused(m.call("/", ""), "login_required", `Bearer realm="doorward"`)
	m.call("/health", "Bearer "+m.token(idToken)).says(t, 200, "hello , secrets: []")

	// A token with another key, and a proof for another address or used twice.
	key, thief := newDPoPKey(t), newDPoPKey(t)
	bound := m.token(func(_, c map[string]any) { c["cnf"] = map[string]any{"jkt": key.thumbprint()} })
	m.refused(m.call("/", "DPoP "+bound, thief.proof(m.base+"/", bound)), "token_binding_mismatch", `DPoP realm="doorward", error="invalid_token"`)
	m.refused(m.call("/", "DPoP "+bound, key.proof("http://127.0.0.1/", bound)), "proof_invalid", `error="invalid_dpop_proof"`)
	proof := key.proof(m.base+"/", bound)
	m.call("/", "DPoP "+bound, proof).says(t, 200, "services:batch")
	m.refused(m.call("/", "DPoP "+bound, proof), "proof_invalid", `error="invalid_dpop_proof"`)

	// A revoked token goes on working for the cache time, and not longer.
	m.set("soon-revoked", true)
	m.call("/", "Bearer soon-revoked").says(t, 200, "opaque:batch")
	m.set("soon-revoked", false)
	eventually(t, "the revoked token is refused", func() bool {
		p := m.call("/", "Bearer soon-revoked")
		return p.status == 401 && strings.Contains(p.body, "token_revoked")
	})
}

// dpopKey is the key of a client that proves possession (RFC 9449).
type dpopKey struct {
	*ecdsa.PrivateKey
	t *testing.T
}

func newDPoPKey(t *testing.T) dpopKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return dpopKey{key, t}
}

func (k dpopKey) jwk() map[string]string {
	k.t.Helper()
	point, err := k.PublicKey.Bytes()
	if err != nil {
		k.t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	return map[string]string{"crv": "P-256", "kty": "EC", "x": text(point[1:33]), "y": text(point[33:])}
}

// thumbprint is that of RFC 7638: json.Marshal writes the members in its order.
func (k dpopKey) thumbprint() string {
	k.t.Helper()
	canonical, err := json.Marshal(k.jwk())
	if err != nil {
		k.t.Fatal(err)
	}
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (k dpopKey) proof(address, token string) string {
	k.t.Helper()
	sum := sha256.Sum256([]byte(token))
	proof := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"jti": rand.Text(), "htm": "GET", "htu": address, "iat": time.Now().Unix(), "ath": base64.RawURLEncoding.EncodeToString(sum[:]),
	})
	proof.Header["typ"], proof.Header["jwk"] = "dpop+jwt", k.jwk()
	signed, err := proof.SignedString(k.PrivateKey)
	if err != nil {
		k.t.Fatal(err)
	}
	return signed
}
