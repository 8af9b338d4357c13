package authn

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

// Seen elsewhere: 300 tokens with unknown kids made 78 fetches in 0.1 s.
func TestBadTokensCauseAtMostOneFetch(t *testing.T) {
	// KID stands for the id of a key the provider has.
	for name, header := range map[string]string{
		"unknown kids":                  `{"alg":"ES256","kid":"k%d"}`,
		"one unknown kid":               `{"alg":"ES256","kid":"k"}`,
		"known kid, forged signature":   `{"alg":"ES256","kid":"KID"}`,
		"known kid, another algorithm":  `{"alg":"RS256","kid":"KID"}`,
		"no kid, signature of no one's": `{"alg":"ES256"}`,
	} {
		s := world(t, nil)
		c := s.auth.clients["corp"]
		if _, err := c.metadata.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		keys, err := c.keys.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.clock.Advance(time.Hour)
		before := s.corp.Requests(testidp.JWKS)
		for i := range 300 {
			named := strings.ReplaceAll(strings.ReplaceAll(header, "KID", keys[0].ID), "%d", fmt.Sprint(i))
			raw := makeSigners().sign(t, named, goodPayload(""))
			if _, err := c.verify(t.Context(), raw, expectation{nonce: "n0"}); err == nil {
				t.Fatalf("%s: accepted", name)
			}
		}
		if got := s.corp.Requests(testidp.JWKS) - before; got > 1 {
			t.Errorf("%s: %d fetches", name, got)
		}
	}
}

func TestRotatedKeyIsFoundOnce(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	if err := s.corp.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(jose.MinPause)
	before := s.corp.Requests(testidp.JWKS)
	for range 3 {
		s.browser().enter(app+"/", "alice").want(t, "hello")
	}
	if got := s.corp.Requests(testidp.JWKS) - before; got != 1 {
		t.Errorf("%d fetches", got)
	}
}

// A lying answer never takes the place of good keys.
func TestGoodKeysOutliveBadAnswers(t *testing.T) {
	for name, answer := range map[string]testidp.Answer{
		"no keys":       testidp.EmptyKeys(),
		"not JSON":      testidp.NotJSON(),
		"huge":          testidp.Huge(),
		"down":          {Status: 503},
		"error":         testidp.Fails(404, "x"),
		"keys twice":    {Body: `{"keys":[],"keys":[]}`},
		"no list":       {Body: `{"keys":{}}`},
		"foreign kinds": {Body: `{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"},7,null]}`},
		"redirect":      {Status: 302, Header: http.Header{"Location": {"https://evil.example/jwks"}}},
	} {
		s := world(t, nil)
		b := s.browser()
		b.enter(app+"/", "alice").want(t, "hello")
		s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.JWKS] = answer })
		c := s.auth.clients["corp"]
		for range 5 {
			s.clock.Advance(jose.MinPause)
			if err := c.keys.Refresh(t.Context()); err == nil {
				t.Errorf("%s: taken for keys", name)
			}
		}
		s.browser().enter(app+"/", "alice").want(t, "hello")
		if err := s.auth.Ready()["corp"]; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetadataAreChecked(t *testing.T) {
	for name, change := range map[string]func(m map[string]any){
		"another issuer":        func(m map[string]any) { m["issuer"] = "https://evil.example" },
		"issuer with a slash":   func(m map[string]any) { m["issuer"] = "https://corp.test/" },
		"a template as issuer":  func(m map[string]any) { m["issuer"] = "https://corp.test/{tenantid}" },
		"no issuer":             func(m map[string]any) { delete(m, "issuer") },
		"no token endpoint":     func(m map[string]any) { delete(m, "token_endpoint") },
		"no keys":               func(m map[string]any) { delete(m, "jwks_uri") },
		"plain http":            func(m map[string]any) { m["token_endpoint"] = "http://corp.test/token" },
		"plain http, here":      func(m map[string]any) { m["token_endpoint"] = "http://127.0.0.1/token" },
		"relative":              func(m map[string]any) { m["jwks_uri"] = "/keys" },
		"a script":              func(m map[string]any) { m["authorization_endpoint"] = "javascript:alert(1)" },
		"with a password":       func(m map[string]any) { m["token_endpoint"] = "https://u:p@corp.test/token" },
		"endpoint is a list":    func(m map[string]any) { m["jwks_uri"] = []string{"https://corp.test/keys"} },
		"iss flag is a string":  func(m map[string]any) { m["authorization_response_iss_parameter_supported"] = "true" },
		"algorithms are a text": func(m map[string]any) { m["id_token_signing_alg_values_supported"] = "ES256" },
		"end session by ftp":    func(m map[string]any) { m["end_session_endpoint"] = "ftp://corp.test/" },
	} {
		s := world(t, nil)
		s.corp.Fault(func(f *testidp.Faults) { f.MutateDiscovery = change })
		if err := s.auth.clients["corp"].metadata.Refresh(t.Context()); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestProviderWithoutAcceptableAlgorithmIsNotReady(t *testing.T) {
	s := world(t, func(o *Options) { o.Providers[0].Algorithms = []string{"RS256"} })
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) {
			m["id_token_signing_alg_values_supported"] = []string{"ES256", "none", "HS256"}
		}
	})
	s.browser().getUntil(app+"/", "corp.test/authorize")
	if err := s.auth.Ready()["corp"]; err == nil || !strings.Contains(err.Error(), "ES256") {
		t.Error(err)
	}
}

func TestFailingProviderIsNotAskedAllTheTime(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) { f.Down = true })
	for range 100 {
		s.browser().get(app + "/")
	}
	if got := s.corp.Requests(testidp.Discovery); got != 1 {
		t.Errorf("%d requests", got)
	}
}

// A crowd that arrives at once shares one fetch, and one visitor who leaves does
// not take the answer from the others.
func TestStampedeIsOneFetch(t *testing.T) {
	s := world(t, nil)
	hold := s.corp.Hold(testidp.Discovery)
	var crowd sync.WaitGroup
	for range 50 {
		crowd.Go(func() { s.browser().getUntil(app+"/", "corp.test/authorize") })
	}
	<-hold.Arrived()
	hold.Release()
	crowd.Wait()
	if got := s.corp.Requests(testidp.Discovery); got != 1 {
		t.Errorf("%d requests", got)
	}
}

func TestSlowProviderIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := world(t, func(o *Options) { o.Now = time.Now })
		hold := s.corp.Hold(testidp.Discovery)
		start := time.Now()
		v := s.browser().get(app + "/")
		if took := time.Since(start); v.StatusCode != http.StatusServiceUnavailable || took != jose.FetchTimeout {
			t.Errorf("%d after %s", v.StatusCode, took)
		}
		hold.Release()
	})
}

func TestRunKeepsKeysFreshAndRecoversByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := world(t, func(o *Options) { withTwoProviders(o); o.Now = time.Now })
		s.corp.Fault(func(f *testidp.Faults) { f.Hangup = true })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.auth.Run(ctx) })
		time.Sleep(time.Second)
		synctest.Wait()
		ready := s.auth.Ready()
		if ready["corp"] == nil || ready["partners"] != nil {
			t.Errorf("%v", ready)
		}
		time.Sleep(time.Hour)
		asked := s.corp.Requests(testidp.Discovery)
		if asked < 40 || asked > 80 {
			t.Errorf("a provider that fails was asked %d times within an hour", asked)
		}
		s.corp.Heal()
		time.Sleep(2 * maxBackoff)
		if err := s.auth.Ready()["corp"]; err != nil {
			t.Error(err)
		}
		// A rotated key is known before the first token signed with it.
		if err := s.corp.RotateKeys(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * keysEvery)
		kid, _ := s.corp.Header()["kid"].(string)
		if _, err := s.auth.clients["corp"].keys.Find(t.Context(), kid, "ES256"); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://corp.test","authorization_endpoint":"https://corp.test/a","token_endpoint":"https://corp.test/t","jwks_uri":"https://corp.test/k"}`))
	f.Add([]byte(`{"issuer":"https://corp.test","authorization_endpoint":"http://[::1"}`))
	issuer, err := parseIssuer("https://corp.test")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, err := jose.ParseObject(data)
		if err != nil {
			return
		}
		m, err := parseMetadata(obj, issuer, "https://corp.test")
		if err != nil {
			return
		}
		for _, address := range []string{m.authorization, m.token, m.jwks} {
			if !strings.HasPrefix(strings.ToLower(address), "https://") {
				t.Fatalf("accepted %q", address)
			}
		}
	})
}

func TestKnownDocumentsAreNotFetchedAgain(t *testing.T) {
	s := world(t, nil)
	for range 3 {
		s.browser().enter(app+"/", "alice").want(t, "hello")
		s.clock.Advance(time.Minute)
	}
	if d, k := s.corp.Requests(testidp.Discovery), s.corp.Requests(testidp.JWKS); d != 1 || k != 1 {
		t.Errorf("%d fetches of metadata, %d of keys", d, k)
	}
}

func TestSilentMetadataMeanRS256(t *testing.T) {
	issuer, err := parseIssuer("https://corp.test")
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMetadata(jose.Object{
		"issuer": "https://corp.test", "authorization_endpoint": "https://corp.test/a",
		"token_endpoint": "https://corp.test/t", "jwks_uri": "https://corp.test/k",
	}, issuer, "https://corp.test")
	p := corpProvider()
	if err != nil || !slices.Equal(m.accepted(&p), []string{"RS256"}) {
		t.Errorf("%+v, %v", m, err)
	}
}
