package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// limited runs one doorward whose section server has the limits.
func limited(t testing.TB, limits string, app http.HandlerFunc) *fleet {
	t.Helper()
	return startFleetOf(t, 1, "{store: {memory: true}}", app, func(text string) string {
		return strings.Replace(text, "server: {", "server: {limits: "+limits+", ", 1)
	})
}

// somebody is a new visitor who has logged in.
func (f *fleet) somebody(name string) *visitor {
	v := f.visitor(func() int { return 0 })
	v.login(f.at("app", "/"), name)
	return v
}

// Alice's script runs wild. It is told to wait, each request leaves its record
// with the verdict as it is, the metrics name the limit, and Bob notices nothing.
func TestANoisyIdentityIsToldToWait(t *testing.T) {
	f := limited(t, "{identity: {rate: 20/h}}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Header.Get("X-User"))
	})
	alice, bob := f.somebody("alice"), f.somebody("bob")
	script := http.Header{"Accept": {"application/json"}}
	refused := 0
	for range 100 {
		p := alice.once("GET", f.at("app", "/export"), script, nil)
		if p.status == 200 {
			continue
		}
		refused++
		p.says(t, 429, string(access.IdentityTooFast))
		if p.header.Get("Retry-After") == "" || !strings.HasPrefix(p.header.Get("RateLimit"), `"identity";r=0;t=`) {
			t.Fatalf("when to come back: %v", p.header)
		}
	}
	alice.once("GET", f.at("app", "/"), alice.header, nil).says(t, 429, "You send too many requests", "Try again")
	bob.open(f.at("app", "/")).says(t, 200, "hello corp:bob")
	if refused < 80 || refused >= 100 {
		t.Errorf("%d of 100 were refused", refused)
	}

	site := f.replicas[0]
	counted := fmt.Sprintf(`doorward_requests_total{door="standalone",outcome="allow",reason="identity_too_fast",route="app"} %d`, refused+1)
	eventually(t, "the metrics to say "+counted, func() bool {
		return strings.Contains(bob.once("GET", "http://"+site.admin+"/metrics", nil, nil).body, counted)
	})
	if code := site.stop(); code != 0 { // and every record is decided again
		t.Errorf("doorward ended with %d", code)
	}
	records := 0
	for _, e := range events(t, site.dir+"/audit.jsonl") {
		if e.Response.Reason == access.IdentityTooFast {
			records++
			if e.Decision.Outcome != access.Allow || e.Request.Identity.Username == "" || e.Response.Upstream != "" {
				t.Errorf("%+v %+v", e.Decision, e.Response)
			}
		}
	}
	if records != refused+1 {
		t.Errorf("%d requests were refused, %d are on the record", refused+1, records)
	}
}

// Somebody without a name floods the login. A visitor who is known goes on; a
// person who wants to log in from another network can.
func TestStrangersWhoFloodTheLogin(t *testing.T) {
	f := startFleetOf(t, 1, "{store: {memory: true}}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }, func(text string) string {
		return strings.Replace(text, "server: {", "server: {trusted_proxies: [127.0.0.1], limits: {strangers: {rate: 10/h, burst: 50}}, ", 1)
	})
	alice := f.somebody("alice")
	flood := f.visitor(func() int { return 0 })
	flood.client.Jar = nil // every request is of somebody new
	statuses := map[int]int{}
	for range 100 {
		header := flood.header.Clone()
		header.Set("X-Forwarded-For", "192.0.2.66")
		statuses[flood.once("GET", f.at("app", "/"), header, nil).status]++
	}
	if statuses[302] != 50 || statuses[429] != 50 {
		t.Errorf("%v", statuses)
	}
	again := flood.header.Clone()
	again.Set("X-Forwarded-For", "192.0.2.66")
	if p := flood.once("GET", f.at("app", "/"), again, nil); p.status != 429 || len(p.body) > 500 || !strings.Contains(p.body, "Wait a moment") {
		t.Errorf("%d bytes:\n%s", len(p.body), p.body)
	}
	alice.header.Set("X-Forwarded-For", "192.0.2.66")
	alice.open(f.at("app", "/")).says(t, 200, "hello")
	f.somebody("bob").open(f.at("app", "/")).says(t, 200, "hello")
	if code := f.replicas[0].stop(); code != 0 {
		t.Errorf("doorward ended with %d", code)
	}
}
