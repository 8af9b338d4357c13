package authn

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// apiServer is as much of a Kubernetes API server as is asked: discovery, keys
// and TokenReview. Its tokens are signed by a provider.
type apiServer struct {
	*stage
	signer *testidp.Provider
	shown  string         // our own token, as it was shown last
	status map[string]any // of the next review
	asked  int
}

const clusterIssuer = "https://kubernetes.default.svc.cluster.local"

func kubernetes(t *testing.T, review bool) *apiServer {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("our own token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &apiServer{}
	k.stage = world(t, func(o *Options) {
		o.Providers = append(o.Providers, Provider{ID: "ci", Issuer: kubernetesIssuer, MachineTokens: MachineTokens{
			Audiences: []string{"doorward"}, Kubernetes: Kubernetes{API: "https://api.test", TokenFile: file, Review: review},
		}})
	})
	k.signer = k.newProvider("https://signer.test", nil)
	k.net["api.test"] = http.HandlerFunc(k.serve)
	return k
}

func (k *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	k.shown = r.Header.Get("Authorization")
	switch r.Method + " " + r.URL.Path {
	case "GET /.well-known/openid-configuration":
		// As the real one writes it: jwks_uri may be an address we cannot reach.
		json.NewEncoder(w).Encode(map[string]any{"issuer": clusterIssuer, "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks",
			"response_types_supported": []string{"id_token"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	case "GET /openid/v1/jwks":
		if !strings.Contains(r.Header.Get("Accept"), "application/jwk-set+json") { // as the real one does
			w.WriteHeader(http.StatusNotAcceptable)
			return
		}
		r.URL.Path = "/jwks"
		k.signer.ServeHTTP(w, r)
	case "POST /apis/authentication.k8s.io/v1/tokenreviews":
		k.asked++
		var question struct {
			Kind string
			Spec struct {
				Token     string
				Audiences []string
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil || question.Kind != "TokenReview" || !slices.Equal(question.Spec.Audiences, []string{"doorward"}) {
			k.Errorf("asked %+v: %v", question, err)
		}
		if k.status == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "status": k.status})
	default:
		http.NotFound(w, r)
	}
}

// pod returns a projected token as the kubelet mounts it.
func (k *apiServer) pod(change func(header, claims map[string]any)) string {
	k.Helper()
	header, now := k.signer.Header(), k.clock.Now().Unix()
	delete(header, "typ")
	claims := map[string]any{
		"iss": clusterIssuer, "aud": []string{"doorward"}, "sub": "system:serviceaccount:build:runner", "jti": "1", "iat": now, "nbf": now, "exp": now + 3600,
		"kubernetes.io": map[string]any{"namespace": "build", "serviceaccount": map[string]any{"name": "runner", "uid": "u"}},
	}
	if change != nil {
		change(header, claims)
	}
	raw, err := k.signer.Sign(header, claims)
	if err != nil {
		k.Fatal(err)
	}
	return raw
}

func TestServiceAccounts(t *testing.T) {
	k := kubernetes(t, false)
	id := k.present("Bearer "+k.pod(nil), nil).Identity
	if id.ServiceAccount != "build/runner" || id.Kind != access.Service || id.User() != "ci:system:serviceaccount:build:runner" || id.Issuer != clusterIssuer {
		t.Fatalf("%+v", id)
	}
	if k.shown != "Bearer our own token" {
		t.Errorf("showed %q", k.shown)
	}
	if _, ok := k.auth.clients["ci"]; ok || len(k.auth.order) != 1 || k.auth.Ready()["ci"] != nil {
		t.Errorf("nobody can log in with a cluster; ready: %v", k.auth.Ready())
	}
	for name, c := range map[string]struct {
		change func(h, c map[string]any)
		want   access.Reason
	}{
		"for the API server": {func(_, c map[string]any) { c["aud"] = clusterIssuer }, access.TokenAudience},
		"expired":            {func(_, c map[string]any) { c["exp"] = c["iat"] }, access.TokenExpired},
		"a user":             {func(_, c map[string]any) { c["sub"] = "admin" }, access.TokenInvalid},
		"no name":            {func(_, c map[string]any) { c["sub"] = "system:serviceaccount:build" }, access.TokenInvalid},
		"a slash":            {func(_, c map[string]any) { c["sub"] = "system:serviceaccount:build/x:runner" }, access.TokenInvalid},
		"another cluster":    {func(_, c map[string]any) { c["iss"] = "https://other.cluster" }, access.TokenInvalid},
		"a logout token":     {func(h, _ map[string]any) { h["typ"] = "logout+jwt" }, access.TokenNotAccessToken},
		"by the corp":        {func(_, c map[string]any) { c["iss"] = "https://corp.test" }, access.TokenInvalid},
	} {
		k.refuses(k.pod(c.change), c.want)
		if k.Failed() {
			k.Fatalf("that was the token %q", name)
		}
	}
}

func TestTokenReview(t *testing.T) {
	k := kubernetes(t, true)
	good := map[string]any{"authenticated": true, "audiences": []string{"doorward"}, "user": map[string]any{"username": "system:serviceaccount:build:runner"}}
	k.status = good
	raw := k.pod(nil)
	for range 3 {
		if req := k.present("Bearer "+raw, nil); req.Identity.ServiceAccount != "build/runner" {
			t.Fatalf("%+v", req)
		}
	}
	if k.asked != 1 {
		t.Errorf("asked %d times", k.asked)
	}
	// The pod is deleted.
	k.status = map[string]any{"error": "pod is gone"}
	k.clock.Advance(reviewedFor)
	k.refuses(raw, access.TokenRevoked)

	for name, c := range map[string]struct {
		status map[string]any
		want   access.Reason
	}{
		"an old server, that checked no audience": {map[string]any{"authenticated": true, "user": good["user"]}, access.TokenAudience},
		"another audience":                        {map[string]any{"authenticated": true, "audiences": []string{"x"}, "user": good["user"]}, access.TokenAudience},
		"another user":                            {map[string]any{"authenticated": true, "audiences": good["audiences"], "user": map[string]any{"username": "system:serviceaccount:build:other"}}, access.TokenInvalid},
		"no user":                                 {map[string]any{"authenticated": true, "audiences": good["audiences"]}, access.TokenInvalid},
		"authenticated as text":                   {map[string]any{"authenticated": "true", "audiences": good["audiences"], "user": good["user"]}, access.TokenRevoked},
		"no answer":                               {nil, access.ProviderUnavailable},
	} {
		k.status = c.status
		k.clock.Advance(time.Minute)
		if req := k.present("Bearer "+raw, nil); req.Credential.Problem != c.want {
			t.Errorf("%s: got %q, want %q", name, req.Credential.Problem, c.want)
		}
	}
	k.status = good
	asked := k.asked
	k.refuses(k.pod(func(_, c map[string]any) { c["aud"] = "x" }), access.TokenAudience)
	if k.asked != asked {
		t.Error("a token was sent on that is refused anyway")
	}
}

// A provider without logins needs neither a client nor the endpoints for them.
func TestProviderOfTokensOnly(t *testing.T) {
	no := false
	s := world(t, func(o *Options) {
		o.Providers[0] = Provider{ID: "corp", Issuer: "https://corp.test", MachineTokens: MachineTokens{Audiences: []string{"doorward-api"}, Interactive: &no}}
	})
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) { delete(m, "authorization_endpoint"); delete(m, "token_endpoint") }
	})
	if req := s.present("Bearer "+s.accessToken(nil), nil); req.Identity.User() != "corp:batch" {
		t.Error(req.Credential.Problem)
	}
	if len(s.auth.order) != 0 || s.auth.Ready()["corp"] != nil {
		t.Error(s.auth.Ready())
	}
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) { m["issuer"] = "https://evil.test" }
	})
	s.reload()
	s.refuses(s.accessToken(nil), access.ProviderUnavailable)
}

func TestMachineTokenFaults(t *testing.T) {
	no, yes := false, true
	for want, change := range map[string]func(*Provider){
		"": func(p *Provider) {
			p.Audiences, p.TrustDomain, p.Introspection.Cache = []string{"a"}, "prod.example", access.Duration(time.Minute)
		},
		"an empty audience":             func(p *Provider) { p.Audiences = []string{""} },
		"could pass as an access token": func(p *Provider) { p.Audiences, p.InsecureAnyTokenType = []string{"doorward"}, true },
		"the provider does nothing":     func(p *Provider) { p.Interactive = &no },
		"no access tokens are accepted": func(p *Provider) { p.TrustDomain = "a" },
		"relied on for at most":         func(p *Provider) { p.Audiences, p.Introspection.Cache = []string{"a"}, access.Duration(time.Hour) },
		"is no trust domain":            func(p *Provider) { p.Audiences, p.TrustDomain = []string{"a"}, "spiffe://a" },
		"the key is for Kubernetes":     func(p *Provider) { p.Kubernetes.Review = true },
		"nobody can log in":             func(p *Provider) { p.Issuer, p.Interactive, p.Audiences = kubernetesIssuer, &yes, []string{"a"} },
		"a cluster has no":              func(p *Provider) { p.Issuer, p.Introspection.Cache = kubernetesIssuer, 1 },
		"is reached without TLS":        func(p *Provider) { p.Issuer, p.Kubernetes.API = kubernetesIssuer, "http://api.test" },
		"the client secret is missing":  func(p *Provider) { p.ClientSecret = access.Secret{} },
	} {
		p := corpProvider()
		change(&p)
		f := access.NewFaults("")
		p.Validate(f)
		if list := f.List(); want == "" && len(list) > 0 || want != "" && !slices.ContainsFunc(list, func(f access.Fault) bool { return strings.Contains(f.Text, want) }) {
			t.Errorf("want %q: %+v", want, list)
		}
	}
	bare := Provider{ID: "ci", Issuer: kubernetesIssuer, MachineTokens: MachineTokens{Audiences: []string{"doorward"}}}
	f := access.NewFaults("")
	bare.Validate(f)
	if len(f.List()) > 0 {
		t.Errorf("%+v", f.List())
	}
}
