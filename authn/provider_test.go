package authn

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

func TestProviderFaultsAreAllReported(t *testing.T) {
	good := corpProvider()
	faults := func(change func(*Provider)) (paths []string) {
		p := good
		change(&p)
		f := access.NewFaults("")
		p.Validate(f)
		for _, fault := range f.List() {
			if fault.Text == "" || fault.Cure == "" {
				t.Errorf("%+v", fault)
			}
			paths = append(paths, fault.Path)
		}
		return paths
	}
	if got := faults(func(*Provider) {}); got != nil {
		t.Errorf("a good provider has faults: %v", got)
	}
	for _, c := range []struct {
		path   string
		change func(*Provider)
	}{
		{"id", func(p *Provider) { p.ID = "" }},
		{"id", func(p *Provider) { p.ID = "Corp:x" }},
		{"issuer", func(p *Provider) { p.Issuer = "" }},
		{"issuer", func(p *Provider) { p.Issuer = "http://login.corp.example.com" }},
		{"issuer", func(p *Provider) { p.Issuer = "http://localhost.evil.example" }},
		{"issuer", func(p *Provider) { p.Issuer = "https://login.example?x=1" }},
		{"issuer", func(p *Provider) { p.Issuer = "https://u:p@login.example" }},
		{"issuer", func(p *Provider) { p.Issuer = "login.example" }},
		{"issuer", func(p *Provider) { p.Issuer = "https://" }},
		{"client_id", func(p *Provider) { p.ClientID = "" }},
		{"client_secret", func(p *Provider) { p.ClientSecret = access.Secret{} }},
		{"client_secret", func(p *Provider) { p.ClientAuth = ClientAuth{word: "none"} }},
		{"client_auth", func(p *Provider) { p.Profile = "fapi2" }},
		{"scopes[1]", func(p *Provider) { p.Scopes = []string{"openid", "a b"} }},
		{"email_domains[0]", func(p *Provider) { p.EmailDomains = []string{"@partner.example"} }},
		{"trust.groups", func(p *Provider) { p.Trust.Groups = "some" }},
		{"algorithms[0]", func(p *Provider) { p.Algorithms = []string{"none"} }},
		{"algorithms[1]", func(p *Provider) { p.Algorithms = []string{"ES256", "HS256"} }},
	} {
		if got := faults(c.change); !slices.Equal(got, []string{c.path}) {
			t.Errorf("faults at %v, want %s", got, c.path)
		}
	}
	if got := faults(func(p *Provider) { *p = Provider{} }); len(got) != 4 {
		t.Errorf("an empty provider has faults at %v", got)
	}
	for _, issuer := range []string{"http://127.0.0.1:8081", "http://[::1]:1/x", "http://localhost", "http://idp.localhost:8081", "https://login.example/tenant/"} {
		if got := faults(func(p *Provider) { p.Issuer = issuer }); got != nil {
			t.Errorf("%s: %v", issuer, got)
		}
	}
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	s := world(t, nil)
	broken := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(broken, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no sessions":     func(o *Options) { o.Sessions = nil },
		"no owner":        func(o *Options) { o.Owns = nil },
		"short key":       func(o *Options) { o.FlowKey = []byte("x") },
		"login host":      func(o *Options) { o.AuthURL = "auth.corp.test" },
		"issuer":          func(o *Options) { o.Providers = []Provider{{ID: "x"}} },
		"two of one name": func(o *Options) { o.Providers = []Provider{corpProvider(), corpProvider()} },
		"ca missing":      func(o *Options) { o.Providers = []Provider{withCA(broken + "x")} },
		"ca broken":       func(o *Options) { o.Providers = []Provider{withCA(broken)} },
	} {
		o := s.options
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func withCA(path string) Provider {
	p := corpProvider()
	p.CA = path
	return p
}

func TestOwnAuthorityIsTrustedAndNoOther(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{"a":1}`)) }))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		provider Provider
		ok       bool
	}{{withCA(path), true}, {corpProvider(), false}} {
		client, err := newHTTPClient(&Options{}, &c.provider)
		if err != nil {
			t.Fatal(err)
		}
		_, err = jose.GetJSON(t.Context(), client, server.URL, "")
		if (err == nil) != c.ok {
			t.Errorf("ca %q: %v", c.provider.CA, err)
		}
		client.CloseIdleConnections()
	}
}

// Names below localhost must not depend on a name server, or plain http to them
// would leave the machine.
func TestLocalNamesStayHere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{"host":"` + r.Host + `"}`)) }))
	t.Cleanup(server.Close)
	u, _ := url.Parse(server.URL)
	p := corpProvider()
	client, err := newHTTPClient(&Options{}, &p)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	obj, err := jose.GetJSON(t.Context(), client, "http://idp.localhost:"+u.Port(), "")
	if err != nil || obj["host"] != "idp.localhost:"+u.Port() {
		t.Errorf("%v, %v", obj, err)
	}
}

func TestPublicClientSendsItsIDAndNoSecret(t *testing.T) {
	s := world(t, func(o *Options) {
		o.Providers[0].ClientID, o.Providers[0].ClientAuth, o.Providers[0].ClientSecret = "public", ClientAuth{word: "none"}, access.Secret{}
	})
	s.browser().enter(app+"/", "alice").want(t, "hello corp:alice")
}

func TestSecretInTheForm(t *testing.T) {
	s := world(t, func(o *Options) { o.Providers[0].ClientAuth = ClientAuth{word: "post"} })
	s.browser().enter(app+"/", "alice").want(t, "hello corp:alice")
}
