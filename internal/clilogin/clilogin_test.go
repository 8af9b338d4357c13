package clilogin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/testidp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a provider and a client of it.
type stage struct {
	*testing.T
	// clock moves by itself where the client waits.
	clock  *testidp.Clock
	idp    *testidp.Provider
	client *Client
	told   *told
	pauses []time.Duration
	// onPause happens while the client waits for the n-th time.
	onPause func(n int)
}

// told collects what the person reads, and hands over the first address in it.
type told struct {
	mu      sync.Mutex
	text    bytes.Buffer
	address chan string
}

var anAddress = regexp.MustCompile(`https?://\S+`)

func (t *told) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(b)
	if address := anAddress.FindString(string(b)); address != "" {
		select {
		case t.address <- address:
		default:
		}
	}
	return len(b), nil
}

func (t *told) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func newStage(t *testing.T, change func(*Options)) *stage {
	t.Helper()
	s := &stage{T: t, clock: testidp.NewClock(time.Now().Truncate(time.Second)), told: &told{address: make(chan string, 1)}}
	idp, err := testidp.New(testidp.Options{
		Users: testidp.DemoUsers(), Now: s.clock.Now,
		Clients: []testidp.Client{{ID: "cli", RedirectURI: testidp.Loopback("/callback")}, {ID: "web", Secret: "s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	base, stop, err := idp.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s.idp = idp
	opts := Options{
		Issuer: base, ClientID: "cli", Tell: s.told, Transport: transport, Now: s.clock.Now,
		Wait: func(ctx context.Context, d time.Duration) error {
			s.pauses = append(s.pauses, d)
			s.clock.Advance(d)
			if s.onPause != nil {
				s.onPause(len(s.pauses))
			}
			return ctx.Err()
		},
	}
	if change != nil {
		change(&opts)
	}
	if s.client, err = New(opts); err != nil {
		t.Fatal(err)
	}
	return s
}

// person is a browser with somebody in front of it.
func (s *stage) person() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	transport := &http.Transport{}
	s.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport}
}

var (
	action = regexp.MustCompile(`action="([^"]*)"`)
	hidden = regexp.MustCompile(`name="flow" value="([^"]*)"`)
)

func read(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// signIn fills in the provider's login form and returns the page after it.
func signIn(browser *http.Client, page string) (string, error) {
	to, flow := action.FindStringSubmatch(page), hidden.FindStringSubmatch(page)
	if to == nil || flow == nil {
		return "", fmt.Errorf("no login form:\n%s", page)
	}
	return read(browser.PostForm(to[1], url.Values{"flow": {flow[1]}, "username": {"alice"}, "password": {"demo"}}))
}

func (s *stage) login() (Token, error) {
	type answered struct {
		page string
		err  error
	}
	done := make(chan answered, 1)
	browser := s.person()
	go func() {
		page, err := read(browser.Get(<-s.told.address))
		if err == nil {
			page, err = signIn(browser, page)
		}
		done <- answered{page, err}
	}()
	token, err := s.client.Login(s.Context())
	if got := <-done; got.err != nil || !strings.Contains(got.page, "You can close this window") {
		s.Errorf("the browser ended at %v %s", got.err, got.page)
	}
	return token, err
}

func (s *stage) tokens() *Tokens {
	return &Tokens{Path: filepath.Join(s.TempDir(), "doorward", "tokens.json"), Now: time.Now}
}

func (s *stage) works(access string) {
	s.Helper()
	req, _ := http.NewRequest("GET", s.client.Issuer+"/userinfo", nil)
	req.Header.Set("Authorization", "Bearer "+access)
	body, err := read(s.client.http.Do(req))
	if err != nil || !strings.Contains(body, "alice") {
		s.Errorf("the token does not work: %v %s", err, body)
	}
}

func TestLoginByBrowser(t *testing.T) {
	s := newStage(t, nil)
	token, err := s.login()
	if err != nil {
		t.Fatal(err)
	}
	s.works(token.Access)
	if token.Refresh == "" || strings.Contains(s.told.String(), token.Access) || fmt.Sprintf("%+v", token) != "[redacted]" {
		t.Errorf("refresh %v, told %s", token.Refresh != "", s.told)
	}
}

func TestTokenIsKeptForTheOwnerAloneAndRefreshed(t *testing.T) {
	s := newStage(t, nil)
	token, err := s.login()
	if err != nil {
		t.Fatal(err)
	}
	kept := s.tokens()
	if err := kept.Keep(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{kept.Path: 0o600, filepath.Dir(kept.Path): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	valid := func() (string, error) {
		return kept.Valid(t.Context(), Want{}, s.clock.Now(), func(Token) (*Client, error) { return s.client, nil })
	}
	if access, err := valid(); err != nil || access != token.Access {
		t.Errorf("the fresh token was not used: %v", err)
	}
	s.clock.Advance(9*time.Minute + 30*time.Second) // of ten
	var both sync.WaitGroup
	answers := make([]string, 8)
	for i := range answers { // one refresh token is spent, or the provider would end the grant
		both.Go(func() {
			var err error
			if answers[i], err = valid(); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	for _, access := range answers {
		if access == token.Access || access != answers[0] {
			t.Error("the token was not refreshed exactly once")
		}
	}
	s.works(answers[0])
	if _, err := kept.Valid(t.Context(), Want{Issuer: "https://other"}, s.clock.Now(), nil); !errors.Is(err, ErrNotLoggedIn) {
		t.Error(err)
	}
	s.idp.EndGrants("alice")
	s.clock.Advance(time.Hour)
	if _, err := valid(); !errors.Is(err, ErrNotLoggedIn) {
		t.Errorf("after the provider ended the login: %v", err)
	}
	if err := os.Chmod(kept.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := valid(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(kept.Path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedFileIsReported(t *testing.T) {
	s := newStage(t, nil)
	kept := s.tokens()
	if _, err := kept.Valid(t.Context(), Want{}, time.Now(), nil); !errors.Is(err, ErrNotLoggedIn) {
		t.Errorf("no file: %v", err)
	}
	if err := kept.Keep(t.Context(), Token{Issuer: "i", Access: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "[]", "{", `{"version":2}`} {
		if err := os.WriteFile(kept.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := kept.Valid(t.Context(), Want{}, time.Now(), nil); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoginByDeviceCode(t *testing.T) {
	s := newStage(t, nil)
	s.onPause = func(n int) {
		if n != 2 { // the first answer is authorization_pending
			return
		}
		code := regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`).FindString(s.told.String())
		browser := s.person()
		page, err := read(browser.PostForm(s.client.Issuer+"/device", url.Values{"user_code": {strings.ToLower(code)}}))
		if err == nil {
			page, err = signIn(browser, page)
		}
		if err != nil || !strings.Contains(page, "You are logged in as alice") {
			t.Error(err, page)
		}
	}
	token, err := s.client.LoginDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.works(token.Access)
	if len(s.pauses) != 2 || s.pauses[0] != 5*time.Second {
		t.Errorf("pauses %v", s.pauses)
	}
}

func TestDeviceCodeRefusedOrForgotten(t *testing.T) {
	s := newStage(t, nil)
	s.onPause = func(int) {
		code := regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`).FindString(s.told.String())
		read(s.person().PostForm(s.client.Issuer+"/device", url.Values{"user_code": {code}, "refuse": {"yes"}}))
	}
	if _, err := s.client.LoginDevice(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	s.onPause = nil
	if _, err := s.client.LoginDevice(t.Context()); err == nil || !strings.Contains(err.Error(), "not entered in time") {
		t.Error(err)
	}
}

// A provider that asks to slow down is asked less often (RFC 8628 §3.5).
func TestDeviceSlowsDown(t *testing.T) {
	answers := []string{"slow_down", "authorization_pending", "slow_down", "access_denied"}
	var base string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q,"device_authorization_endpoint":%q}`, base, base+"/token", base+"/device")
		case "/device":
			fmt.Fprintf(w, `{"device_code":"d","user_code":"AB-CD","verification_uri":%q,"interval":2}`, base+"/enter")
		default:
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":%q}`, answers[0])
			answers = answers[1:]
		}
	}))
	defer server.Close()
	base = server.URL
	s := newStage(t, func(o *Options) { o.Issuer = base })
	_, err := s.client.LoginDevice(t.Context())
	if err == nil || fmt.Sprint(s.pauses) != "[2s 7s 7s 12s]" {
		t.Errorf("%v %v", err, s.pauses)
	}
	if strings.Contains(s.told.String(), "openid offline_access") {
		t.Error("told too much")
	}
}

func TestUnusableProvidersAndClients(t *testing.T) {
	for name, c := range map[string]struct{ issuer, client, want string }{
		"plain http":    {"http://login.example.com", "cli", "without TLS"},
		"no address":    {"corp", "cli", "no address"},
		"no client":     {"https://login.example.com", "", "client id"},
		"user in it":    {"https://a@login.example.com", "cli", "no address"},
		"with fragment": {"https://login.example.com#x", "cli", "no address"},
	} {
		if _, err := New(Options{Issuer: c.issuer, ClientID: c.client}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newStage(t, func(o *Options) { o.ClientID = "web" })
	if _, err := s.client.LoginDevice(t.Context()); err == nil || !strings.Contains(err.Error(), "public client") {
		t.Error(err)
	}
	s = newStage(t, func(o *Options) { o.Issuer += "/" })
	if _, err := s.client.Login(t.Context()); err == nil || !strings.Contains(err.Error(), "another issuer") {
		t.Error(err)
	}
}

// Anybody on this machine can reach the loopback port.
func TestCallbackTakesOnlyItsOwnAnswer(t *testing.T) {
	for query, want := range map[string]string{
		"state=s&code=c&iss=i":           "c",
		"state=s&code=c":                 "other provider",
		"state=s&code=c&iss=evil":        "other provider",
		"state=s&error=access_denied":    "other provider",
		"state=s&error=x&iss=i":          "refused",
		"state=t&code=c&iss=i":           "",
		"code=c&iss=i":                   "",
		"state=s&state=s&code=c&iss=i":   "",
		"state=s&code=c&code=d&iss=i":    "",
		"state=s&iss=i":                  "",
		"state=s&code=c&iss=i&x=%zz":     "",
		"state=s;code=c":                 "",
		"state=s&code=c&iss=i&iss=evil":  "",
		"state=s&error=&code=c&iss=evil": "other provider",
	} {
		b := &callback{state: "s", issuer: "i", issuerRequired: true, host: "127.0.0.1:1", done: make(chan result, 1)}
		got, ok := b.read(query)
		said := ""
		switch {
		case ok && got.err == nil:
			said = got.code
		case ok && strings.Contains(got.err.Error(), "another provider"):
			said = "other provider"
		case ok:
			said = "refused"
		}
		if said != want {
			t.Errorf("%s: %q, want %q", query, said, want)
		}
	}
	b := &callback{state: "s", host: "127.0.0.1:1", done: make(chan result, 1)}
	for _, r := range []*http.Request{
		httptest.NewRequest("POST", "http://127.0.0.1:1/callback?state=s&code=c", nil),
		httptest.NewRequest("GET", "http://127.0.0.1:1/?state=s&code=c", nil),
		httptest.NewRequest("GET", "http://evil.example:1/callback?state=s&code=c", nil),
	} {
		rec := httptest.NewRecorder()
		if b.ServeHTTP(rec, r); rec.Code != 404 || len(b.done) != 0 {
			t.Errorf("%s %s: %d", r.Method, r.URL, rec.Code)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"expires_in":60,"access_token":"a","error":["x"]}`))
	f.Add([]byte(`{"expires_in":1e400}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parseAnswer(body)
		if (err == nil) != (doc != nil) {
			t.Fatal("neither an answer nor an error")
		}
		if d := doc.seconds("expires_in", time.Hour); d < time.Second || d > 366*24*time.Hour {
			t.Fatalf("expires in %s", d)
		}
		doc.text("error")
	})
}
