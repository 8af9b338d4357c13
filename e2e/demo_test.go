package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// demo is a running demo.
type demo struct {
	*process
	t                     *testing.T
	addr, idp, admin, dir string
}

// startDemo runs the demo on free ports, with its state in dir.
func startDemo(t *testing.T, dir string) *demo {
	t.Helper()
	return (&demo{t: t, addr: freeAddress(t), idp: freeAddress(t), admin: freeAddress(t), dir: dir}).start()
}

func (d *demo) start() *demo {
	d.t.Helper()
	d.process = start(d.t, "demo", "-addr", d.addr, "-idp-addr", d.idp, "-admin-addr", d.admin, "-state", d.dir, "-v")
	d.waitFor("Stop with Ctrl-C", 1)
	return d
}

func (d *demo) url(app, path string) string {
	_, port, _ := net.SplitHostPort(d.addr)
	return "http://" + app + ".localhost:" + port + path
}

func (d *demo) configPath() string { return filepath.Join(d.dir, "doorward.yaml") }

func (d *demo) configuration() string {
	d.t.Helper()
	return readFile(d.t, d.configPath())
}

// events returns the audit log so far.
func (d *demo) events() []access.Event {
	d.t.Helper()
	return events(d.t, filepath.Join(d.dir, "audit.jsonl"))
}

// waitForEvent returns the last event that fits, as soon as there is one.
func (d *demo) waitForEvent(fits func(*access.Event) bool) access.Event {
	d.t.Helper()
	return waitForEvent(d.t, filepath.Join(d.dir, "audit.jsonl"), fits)
}

func waitForEvent(t testing.TB, log string, fits func(*access.Event) bool) access.Event {
	t.Helper()
	var found access.Event
	eventually(t, "an audit event", func() bool {
		for _, e := range events(t, log) {
			if fits(&e) {
				found = e
			}
		}
		return found.Kind != ""
	})
	return found
}

// eventually waits for something another process does.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

// The main job: four people, three applications, and every refusal says what is
// missing and how to cure it.
func TestPeopleReachWhatTheyMay(t *testing.T) {
	d := startDemo(t, t.TempDir())
	d.tellOfPeople(t)
	if code := d.stop(); code != 0 {
		t.Errorf("the demo ended with %d", code)
	}
}

// The same story with a certified provider that shares no code with ours, put
// in place while serving.
func TestPeopleOfAnotherProvider(t *testing.T) {
	d := startDemo(t, t.TempDir())
	idp := startOIDCProvider(t, externalOptions{
		RedirectURIs:   []string{d.url("auth", "/.doorward/callback")},
		PostLogoutURIs: []string{d.url("auth", "/.doorward/logout")},
	})
	secret := writeFile(t, t.TempDir(), "secret", idp.ClientSecret)
	text := d.configuration()
	text = strings.Replace(text, "issuer: http://"+d.idp, "issuer: "+idp.Issuer, 1)
	text = strings.Replace(text, filepath.Join(d.dir, "client-secret"), secret, 1)
	replace(t, d.configPath(), text)
	d.waitFor("configuration loaded", 1)
	d.tellOfPeople(t)

	v := newVisitor(t)
	v.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	p := v.open(d.url("wiki", "/.doorward/logout"))
	if strings.Contains(p.body, "<form") { // oidc-provider's own, which a browser submits by itself
		p = v.submit(p, nil)
	}
	p.says(t, 200, "logged out")
	if p := v.open(d.url("wiki", "/")); !strings.Contains(p.body, `name="username"`) {
		t.Errorf("the provider still remembers alice: %d %s", p.status, p.url)
	}
}

// tellOfPeople is the story of the four people and the three applications.
func (d *demo) tellOfPeople(t *testing.T) {
	t.Run("alice reaches everything, billing after a second factor", func(t *testing.T) {
		v := newVisitor(t)
		v.login(d.url("wiki", "/plans?draft=1"), "alice").says(t, 200, "Wiki", "alice@example.com")
		if p := v.open(d.url("echo", "/deep/link?x=1&y=2")); p.status != 200 || !strings.Contains(p.body, `"/deep/link?x=1&y=2"`) {
			t.Errorf("the way back was lost: %d %s", p.status, p.body)
		}
		asked := v.open(d.url("billing", "/"))
		if !strings.Contains(asked.body, `name="otp"`) {
			t.Fatalf("no second factor was asked for: %d %s\n%s", asked.status, asked.url, asked.body)
		}
		v.confirm(asked).says(t, 200, "Billing", "Invoice 1001")
		v.open(d.url("wiki", "/")).says(t, 200, "Wiki")
	})
	t.Run("bob is told that a managed device is missing", func(t *testing.T) {
		v := newVisitor(t)
		v.login(d.url("wiki", "/"), "bob").says(t, 403, "A managed device is needed", "bob@example.com")
		if p := v.open(d.url("echo", "/")); p.status != 200 {
			t.Errorf("echo is for everyone, yet bob got %d", p.status)
		}
	})
	t.Run("carol is told which check failed and where to fix it", func(t *testing.T) {
		v := newVisitor(t)
		v.login(d.url("wiki", "/"), "carol").says(t, 200, "Wiki")
		p := v.open(d.url("billing", "/"))
		p.says(t, 403, "not compliant", "FileVault is turned off", "inventory")
		if fix := d.url("help", "/"); !strings.Contains(p.body, `href="`+fix+`"`) {
			t.Errorf("no link to %s on\n%s", fix, p.body)
		}
	})
	t.Run("dave is told that the facts are too old", func(t *testing.T) {
		newVisitor(t).login(d.url("wiki", "/"), "dave").says(t, 403, "too old", "30 days ago")
	})
	t.Run("dave is not in finance", func(t *testing.T) {
		newVisitor(t).login(d.url("billing", "/"), "dave").says(t, 403, "You do not have access")
	})
	t.Run("help is public, and only to read", func(t *testing.T) {
		v := newVisitor(t)
		v.open(d.url("help", "/")).says(t, 200, "Help desk")
		if p := v.once("DELETE", d.url("help", "/"), nil, nil); p.status != 401 {
			t.Errorf("a stranger may delete: %d", p.status)
		}
	})
}

// Programs cannot log in on a page: they get a problem document (RFC 9457) and
// a challenge (RFC 9110 §11.6.1), and never a redirect.
func TestProgramsGetProblemsNotRedirects(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	for name, header := range map[string]http.Header{
		"fetch":   {"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}},
		"no-cors": {"Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}, "Accept": {"text/html"}},
		"XHR":     {"Accept": {"text/html, */*"}, "X-Requested-With": {"XMLHttpRequest"}},
		"JSON":    {"Accept": {"application/json"}},
		"axios":   {"Accept": {"application/json, text/plain, */*"}},
		"a token": {"Accept": {"*/*"}, "Authorization": {"Bearer x"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := v.once("GET", d.url("echo", "/"), header, nil)
			if p.status != 401 || !strings.HasPrefix(p.header.Get("Content-Type"), "application/problem+json") {
				t.Fatalf("%d %s", p.status, p.header.Get("Content-Type"))
			}
			if p.header.Get("WWW-Authenticate") == "" || p.header.Get("Location") != "" {
				t.Errorf("headers: %v", p.header)
			}
			var problem struct {
				Status         int
				Title, Reason  string
				Type, Instance string
			}
			p.json(t, &problem)
			if problem.Status != 401 || problem.Reason != string(access.LoginRequired) || problem.Title == "" || problem.Instance == "" {
				t.Errorf("%+v", problem)
			}
		})
	}
	for name, header := range map[string]http.Header{
		"a browser":             v.header,
		"an old browser":        {"Accept": {"text/html,application/xhtml+xml,*/*;q=0.8"}},
		"curl with nothing set": {"Accept": {"*/*"}},
	} {
		p := v.once("GET", d.url("echo", "/"), header, nil)
		if p.status != 302 || !strings.Contains(p.header.Get("Location"), "/.doorward/login") {
			t.Errorf("%s got %d to %q", name, p.status, p.header.Get("Location"))
		}
		if p := v.once("POST", d.url("echo", "/"), header, strings.NewReader("x")); p.status != 401 {
			t.Errorf("%s got %d for a POST", name, p.status)
		}
	}
}

// The application learns who is there from Doorward alone, whatever the visitor
// claims to be.
func TestApplicationsLearnFromDoorwardAlone(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")

	forged := http.Header{}
	for _, name := range []string{
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Uri",
		"X-Forwarded-Method", "X-Forwarded-Server", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "Forwarded", "X-Real-Ip",
		"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name",
		"X-Remote-User", "Doorward-Assertion", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url", "X-Pomerium-Jwt-Assertion",
		"X-Pomerium-Claim-Email", "X-Goog-Authenticated-User-Email", "X-Goog-Iap-Jwt-Assertion", "Cf-Access-Jwt-Assertion",
		"Cf-Access-Authenticated-User-Email", "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Data", "X-Amzn-Ava-User-Context", "Client-Cert", "Client-Cert-Chain",
		"X-Ssl-Client-Cert", "X-Ssl-Cert", "Ssl-Client-Cert", "X-Client-Cert", "X-Arr-Clientcert", "Proxy",
	} {
		const lie = "root@evil.example"
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.Replace(name, "-", "_", 1)} {
			forged[spelling] = []string{lie}
		}
	}
	forged["Connection"] = []string{"X-Forwarded-Email, Doorward-Assertion"}
	if len(forged) < 60 {
		t.Fatalf("only %d spellings", len(forged))
	}
	p := v.once("GET", d.url("echo", "/seen"), forged, nil)
	if p.status != 200 {
		t.Fatalf("%d %s", p.status, p.body)
	}
	if strings.Contains(p.body, "evil.example") {
		t.Errorf("a forged header arrived:\n%s", p.body)
	}
	var seen struct{ Headers http.Header }
	p.json(t, &seen)
	if got := seen.Headers.Values("X-Forwarded-Email"); len(got) != 1 || got[0] != "alice@example.com" {
		t.Errorf("X-Forwarded-Email: %q", got)
	}
	if cookie := seen.Headers.Get("Cookie"); strings.Contains(cookie, "doorward") {
		t.Errorf("the session cookie arrived: %s", cookie)
	}

	var keys struct{ Keys []map[string]string }
	v.once("GET", d.url("echo", "/.doorward/jwks.json"), nil, nil).json(t, &keys)
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(seen.Headers.Get("Doorward-Assertion"), claims, func(token *jwt.Token) (any, error) {
		for _, key := range keys.Keys {
			if key["kid"] == token.Header["kid"] {
				return publicKey(key)
			}
		}
		return nil, fmt.Errorf("no key %v among %v", token.Header["kid"], keys.Keys)
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(d.url("echo", "")), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		t.Fatalf("the assertion does not verify: %v", err)
	}
	exp, _ := claims.GetExpirationTime()
	iat, _ := claims.GetIssuedAt()
	if life := exp.Sub(iat.Time); life > 5*time.Minute || time.Until(exp.Time) > 5*time.Minute {
		t.Errorf("the assertion lives for %s", life)
	}
	if claims["sub"] != "demo:alice" || claims["email"] != "alice@example.com" {
		t.Errorf("claims: %v", claims)
	}
}

// What explain says of a person is what happens to them.
func TestExplainAgreesWithLive(t *testing.T) {
	d := startDemo(t, t.TempDir())
	for _, name := range []string{"alice", "bob", "carol", "dave", ""} {
		v := newVisitor(t)
		if name != "" {
			v.login(d.url("echo", "/"), name)
		}
		for _, app := range []string{"wiki", "echo", "billing", "help"} {
			if name != "" {
				v.confirm(v.open(d.url(app, "/"))) // each host has a session of its own
			}
			v.once("GET", d.url(app, "/check-"+name), v.header, nil)
			live := d.waitForEvent(func(e *access.Event) bool {
				return e.Kind == access.EventDecision && e.Request.Route == app && e.Request.Path == "/check-"+name
			})
			as := filepath.Join(t.TempDir(), "as.yaml")
			person, err := json.Marshal(map[string]any{})
			if id := live.Request.Identity; !id.Nobody() {
				// JSON is YAML; the person is the one of the record.
				person, err = json.Marshal(struct {
					Provider string         `json:"provider"`
					Sub      string         `json:"sub"`
					Email    string         `json:"email,omitempty"`
					Groups   []string       `json:"groups,omitempty"`
					Claims   map[string]any `json:"claims,omitempty"`
					ACR      string         `json:"acr,omitempty"`
					AMR      []string       `json:"amr,omitempty"`
				}{id.Provider, id.Subject, id.Email, id.Groups, id.Claims, id.Login.ACR, id.Login.AMR})
			}
			if err == nil {
				err = os.WriteFile(as, person, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			explained := run(t, "doorward", "explain", "--config", d.configPath(),
				"--url", d.url(app, "/check-"+name), "--as", as, "--output", "json")
			var got struct{ Decision access.Decision }
			if err := json.Unmarshal([]byte(explained.stdout), &got); err != nil {
				t.Fatalf("%v\n%s%s", err, explained.stdout, explained.stderr)
			}
			if got.Decision.Outcome != live.Decision.Outcome || got.Decision.Reason != live.Decision.Reason || got.Decision.Rule != live.Decision.Rule {
				t.Errorf("%q on %s: explain says %v %s %s, live was %v %s %s", name, app,
					got.Decision.Outcome, got.Decision.Reason, got.Decision.Rule, live.Decision.Outcome, live.Decision.Reason, live.Decision.Rule)
			}
			if want := map[bool]int{true: 0, false: 1}[live.Decision.Outcome == access.Allow]; explained.code != want {
				t.Errorf("%q on %s: explain ended with %d", name, app, explained.code)
			}
			d.explainPast(v, &live)
			text := run(t, "doorward", "explain", "--config", d.configPath(), "--url", d.url(app, "/"), "--as", as)
			if !strings.Contains(text.stdout, strings.ToUpper(live.Decision.Outcome.String())) {
				t.Errorf("%q on %s: the tree does not name the outcome %s:\n%s", name, app, live.Decision.Outcome, text.stdout)
			}
		}
	}
}

// explainPast asks for a decision by its id, which a refusal page shows: from the
// audit log and from the admin listener, and gets the recorded verdict.
func (d *demo) explainPast(v *visitor, live *access.Event) {
	d.t.Helper()
	type answer struct {
		Recorded    access.Decision
		Tree        struct{ Decision access.Decision }
		OtherPolicy bool `json:"other_policy"`
		Differs     bool
	}
	var fromLog, fromAdmin answer
	past := run(d.t, "doorward", "explain", "--config", d.configPath(), "--id", live.Request.ID, "--output", "json")
	if err := json.Unmarshal([]byte(past.stdout), &fromLog); err != nil {
		d.t.Fatalf("%v\n%s%s", err, past.stdout, past.stderr)
	}
	token := strings.TrimSpace(readFile(d.t, filepath.Join(d.dir, "admin-token")))
	v.once("GET", "http://"+d.admin+"/api/v1/explain?id="+live.Request.ID, http.Header{"Authorization": {"Bearer " + token}}, nil).json(d.t, &fromAdmin)
	for where, got := range map[string]answer{"the audit log": fromLog, "the admin listener": fromAdmin} {
		if got.OtherPolicy || got.Differs || asJSON(got.Recorded) != asJSON(live.Decision) || asJSON(got.Tree.Decision) != asJSON(live.Decision) {
			d.t.Errorf("%s explains %s as %+v", where, asJSON(live.Decision), got)
		}
	}
}

// A restart keeps people logged in; a broken configuration changes nothing but
// the log and a metric.
func TestRestartAndBrokenConfiguration(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	if code := d.stop(); code != 0 {
		t.Fatalf("the demo ended with %d", code)
	}
	d.start()
	if p := v.once("GET", d.url("wiki", "/"), v.header, nil); p.status != 200 {
		t.Fatalf("alice lost her session over a restart: %d to %s", p.status, p.header.Get("Location"))
	}

	path, good := d.configPath(), d.configuration()
	replace(t, path, strings.Replace(good, "groups: [staff]", "groups: [stuff]", 1))
	d.waitFor("stuff", 1)
	v.once("GET", d.url("wiki", "/"), v.header, nil).says(t, 200, "Wiki")
	eventually(t, "the metric", func() bool {
		metrics := v.once("GET", "http://"+d.admin+"/metrics", nil, nil)
		return strings.Contains(metrics.body, `doorward_config_reload_total{result="failed"} 1`)
	})

	replace(t, path, strings.Replace(good, "require: {device: managed}", "require: {device: healthy, login: {acr: [never]}}", 1))
	eventually(t, "the new policy", func() bool {
		return v.once("GET", d.url("wiki", "/"), http.Header{"Accept": {"application/json"}}, nil).status == 401
	})
}

// replace writes a file as an editor does: a new one, renamed over the old.
func replace(t testing.TB, path, text string) {
	t.Helper()
	rememberFile(path)
	remember([]byte(text))
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// Logging out ends the session on every host, also for someone who kept the
// cookies.
func TestLogoutEndsEverySession(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	v.open(d.url("echo", "/"))
	echoURL, _ := url.Parse(d.url("echo", "/"))
	stolen := v.client.Jar.Cookies(echoURL)
	if len(stolen) == 0 {
		t.Fatal("no session on echo")
	}
	v.open(d.url("wiki", "/.doorward/logout"))
	for app, thief := range map[string]*visitor{"echo": newVisitor(t), "wiki": newVisitor(t)} {
		u, _ := url.Parse(d.url(app, "/"))
		thief.client.Jar.SetCookies(u, stolen)
		if p := thief.once("GET", u.String(), thief.header, nil); p.status != 302 {
			t.Errorf("a kept cookie still opens %s: %d", app, p.status)
		}
	}
	if p := v.open(d.url("wiki", "/")); !strings.Contains(p.body, `name="username"`) {
		t.Errorf("the provider still remembers alice: %d %s", p.status, p.url)
	}
}

// A cookie stolen from one application opens no other.
func TestCookieOpensOneHostOnly(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")
	from, _ := url.Parse(d.url("echo", "/"))
	to, _ := url.Parse(d.url("wiki", "/"))
	thief := newVisitor(t)
	thief.client.Jar.SetCookies(to, v.client.Jar.Cookies(from))
	if p := thief.once("GET", to.String(), thief.header, nil); p.status != 302 {
		t.Errorf("echo's cookie opened the wiki: %d", p.status)
	}
}
