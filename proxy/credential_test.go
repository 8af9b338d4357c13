package proxy

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// bearer takes the token of a request for the name of a machine, or for the
// reason why it is refused.
type bearer struct{ expires time.Time }

func (b bearer) Identify(r *http.Request, req *access.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme != "Bearer" && scheme != "DPoP" {
		return nil
	}
	req.Credential = access.Credential{Scheme: scheme, Expires: b.expires}
	if reason := access.Reason(token); reason.Known() {
		req.Credential.Problem = reason
		return nil
	}
	req.Identity = access.Identity{Kind: access.Service, Provider: "ci", Issuer: "https://ci", Subject: token,
		Workload: access.Workload{ClientID: "c1", Scopes: []string{"a", "b"}}}
	return nil
}

func (b bearer) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return b.Identify(r, req)
}

func withBearer(w *world) {
	w.snapshot.Identify = bearer{time.Now().Add(30 * time.Second)}
	w.snapshot.Policy = policy(func(req *access.Request) access.Decision {
		switch {
		case req.Path == "/public":
			return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute}
		case req.Credential.Problem != "":
			return access.Decision{Reason: req.Credential.Problem}
		}
		return loginFirst(req)
	})
}

// An access token ends at the door: the application learns who sent it, and
// nothing it could use itself.
func TestAccessTokensAreNotPassedOn(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.test", newEcho(t))}, withBearer)
	for _, path := range []string{"/", "/public"} {
		for _, scheme := range []string{"Bearer ", "DPoP "} {
			_, body := w.ask("GET", "http://app.test"+path, "Authorization", scheme+"robot", "DPoP", "a-proof")
			got := decode(t, body)
			if got.Header.Get("Authorization") != "" || got.Header.Get("Dpop") != "" {
				t.Errorf("the application saw %v", got.Header)
			}
		}
	}
	_, body := w.ask("GET", "http://app.test/", "Authorization", "Bearer robot")
	parts := strings.Split(decode(t, body).Header.Get(AssertionHeader), ".")
	if len(parts) != 3 {
		t.Fatalf("no assertion: %s", body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var said claims
	if err := json.Unmarshal(payload, &said); err != nil {
		t.Fatal(err)
	}
	if said.Subject != "ci:robot" || said.ClientID != "c1" || said.Scope != "a b" || said.Expires > time.Now().Add(31*time.Second).Unix() {
		t.Errorf("%+v", said)
	}
	// Another scheme is between the visitor and the application.
	_, body = w.ask("GET", "http://app.test/public", "Authorization", "Basic YTpi")
	if got := decode(t, body).Header.Get("Authorization"); got != "Basic YTpi" {
		t.Errorf("%q", got)
	}
}

func TestRefusedTokensSayWhy(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.test", newEcho(t))}, withBearer)
	for _, c := range []struct {
		scheme    string
		reason    access.Reason
		status    int
		challenge string
	}{
		{"Bearer", access.TokenExpired, 401, `Bearer realm="doorward", error="invalid_token", error_description="The token has expired"`},
		{"Bearer", access.TokenAudience, 401, `Bearer realm="doorward", error="invalid_token", error_description="The token is for someone else"`},
		{"DPoP", access.TokenBindingMismatch, 401, `DPoP realm="doorward", error="invalid_token", error_description="The token belongs to another key"`},
		{"DPoP", access.ProofInvalid, 401, `DPoP realm="doorward", error="invalid_dpop_proof", error_description="The proof of possession is not accepted", algs="ES256 PS256 EdDSA RS256"`},
		{"Bearer", access.ProviderUnavailable, 503, ""},
		{"Bearer", access.BadRequest, 400, ""},
	} {
		for _, path := range []string{"/", access.MePath} {
			res, body := w.ask("GET", "http://app.test"+path, "Authorization", c.scheme+" "+string(c.reason))
			if res.StatusCode != c.status || res.Header.Get("WWW-Authenticate") != c.challenge || !strings.Contains(body, string(c.reason)) {
				t.Errorf("%s %s: %d %q %s", path, c.reason, res.StatusCode, res.Header.Get("WWW-Authenticate"), body)
			}
			w.rec.event(t)
		}
	}
	res, _ := w.ask("GET", "http://app.test/")
	if got := res.Header.Get("WWW-Authenticate"); got != `Bearer realm="doorward"` {
		t.Errorf("without a token: %q", got) // RFC 6750 §3.1: no error code
	}
}
