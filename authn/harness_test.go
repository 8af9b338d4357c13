package authn

import (
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/testidp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClock() *testidp.Clock {
	return testidp.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
}

// network answers requests in this process, by host name. It is the internet of
// the tests, for browsers and for the authenticator alike.
type network map[string]http.Handler

func (n network) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	h := n[r.URL.Host]
	if h == nil {
		return nil, fmt.Errorf("no such host: %s", r.URL.Host)
	}
	in := r.Clone(r.Context())
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			resp, err = nil, io.ErrUnexpectedEOF
			if ctx := r.Context().Err(); ctx != nil {
				err = ctx
			}
		} else if p != nil {
			panic(p)
		}
	}()
	h.ServeHTTP(rec, in)
	resp = rec.Result()
	resp.Request = r
	return resp, nil
}

// stage is a small world: applications behind an authenticator, and providers.
type stage struct {
	*testing.T
	clock    *testidp.Clock
	net      network
	sessions *session.Manager
	auth     *Authenticator
	options  Options
	corp     *testidp.Provider
	partners *testidp.Provider

	mu     sync.Mutex
	events []*access.Event
	// ask is what the applications demand of a login, provider their route's.
	ask      access.LoginRequire
	provider string
}

const (
	app     = "https://app.corp.test"
	wiki    = "https://wiki.corp.test"
	authURL = "https://auth.corp.test"
)

// world sets the stage with the provider corp. change may alter the options.
func world(t *testing.T, change func(*Options)) *stage {
	t.Helper()
	s := &stage{T: t, clock: newClock(), net: network{}}
	s.corp = s.newProvider("https://corp.test", nil)
	s.partners = s.newProvider("https://partners.test", nil)
	memory := store.NewMemory(s.clock.Now)
	t.Cleanup(func() { memory.Close() })
	var err error
	s.sessions, err = session.New(session.Options{
		Config: session.Config{Lifetime: access.Duration(10 * time.Hour), Idle: access.Duration(time.Hour)},
		Store:  memory, Now: s.clock.Now, Emit: s.emit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.sessions.Close() })
	key, err := s.sessions.Key(t.Context(), "login flows")
	if err != nil {
		t.Fatal(err)
	}
	s.options = Options{
		Providers: []Provider{corpProvider()},
		Owns:      func(origin string) bool { return origin == app || origin == wiki },
		Sessions:  s.sessions, Transport: s.net, FlowKey: key, Now: s.clock.Now, Emit: s.emit,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&s.options)
	}
	s.reload()
	for _, origin := range []string{app, wiki, authURL} {
		s.net[strings.TrimPrefix(origin, "https://")] = http.HandlerFunc(s.door)
	}
	return s
}

func withLoginHost(o *Options) { o.AuthURL = authURL }

func withTwoProviders(o *Options) {
	o.Providers = append(o.Providers, Provider{
		ID: "partners", Issuer: "https://partners.test", ClientID: "dw", ClientSecret: access.NewSecret("p"),
		EmailDomains: []string{"partner.example"}, Trust: Trust{Groups: "none"},
	})
}

func corpProvider() Provider {
	return Provider{ID: "corp", Name: "Corp", Issuer: "https://corp.test", ClientID: "doorward", ClientSecret: access.NewSecret("s3cret&:")}
}

// reload makes a new authenticator from the options.
func (s *stage) reload() {
	s.Helper()
	auth, err := New(s.options)
	if err != nil {
		s.Fatal(err)
	}
	s.auth = auth
	s.sessions.SetRefresher(auth)
}

func (s *stage) newProvider(issuer string, change func(*testidp.Options)) *testidp.Provider {
	s.Helper()
	anywhere := func(suffix string) func(string) bool {
		return testidp.Exactly(app+suffix, wiki+suffix, authURL+suffix)
	}
	options := testidp.Options{
		Issuer: issuer, Users: testidp.DemoUsers(), Algorithms: []string{"ES256"}, Now: s.clock.Now,
		Clients: []testidp.Client{
			{ID: "doorward", Secret: "s3cret&:", RedirectURI: anywhere(access.CallbackPath), PostLogoutURI: anywhere(access.LogoutPath)},
			{ID: "dw", Secret: "p", RedirectURI: anywhere(access.CallbackPath), PostLogoutURI: anywhere(access.LogoutPath)},
			{ID: "public", RedirectURI: anywhere(access.CallbackPath)},
		},
	}
	if change != nil {
		change(&options)
	}
	p, err := testidp.New(options)
	if err != nil {
		s.Fatal(err)
	}
	s.net[strings.TrimPrefix(issuer, "https://")] = p
	return p
}

func (s *stage) emit(e *access.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// reasons returns the reasons of all login events so far, and forgets all events.
func (s *stage) reasons() []access.Reason { return s.reasonsOf(access.EventLogin) }

func (s *stage) reasonsOf(kind access.EventKind) (list []access.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind {
			list = append(list, e.Reason)
		}
	}
	s.events = nil
	return list
}

// door is a proxy reduced to what concerns logins.
func (s *stage) door(w http.ResponseWriter, r *http.Request) {
	req := &access.Request{
		ID: "req-" + r.URL.Path, Time: s.clock.Now(), Method: r.Method, Scheme: "https", Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery,
	}
	var err error
	if strings.HasPrefix(r.URL.Path, access.Prefix) {
		err = s.auth.Serve(w, r, req)
	} else if err = s.auth.Identify(r, req); err == nil {
		if !req.Identity.Nobody() && satisfied(&req.Identity.Login, s.ask, req.Time) {
			fmt.Fprintf(w, "hello %s at %s", req.Identity.User(), r.URL.RequestURI())
			return
		}
		err = s.auth.Begin(w, r, req, s.ask, s.provider)
	}
	if err != nil {
		if _, ok := err.(*access.Error); !ok {
			s.Errorf("%s: %T is no *access.Error: %v", r.URL, err, err)
		}
		s.Log(err)
		reason := access.ReasonOf(err)
		w.WriteHeader(reason.Info().Status)
		fmt.Fprintf(w, "refused: %s", reason)
	}
}

// browser has cookies and follows redirects, noting where it has been.
type browser struct {
	*stage
	jar   http.CookieJar
	trail []string
	// stop ends at redirects to addresses that contain it.
	stop string
}

func (s *stage) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &browser{stage: s, jar: jar}
}

// view is what a browser ends up seeing.
type view struct {
	*http.Response
	body string
	at   *url.URL
}

func (b *browser) do(r *http.Request) view {
	b.Helper()
	b.trail = nil
	client := &http.Client{Transport: b.net, Jar: b.jar, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		b.trail = append(b.trail, r.URL.String())
		if b.stop != "" && strings.Contains(r.URL.String(), b.stop) || len(via) > 20 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return view{resp, string(body), resp.Request.URL}
}

func (b *browser) get(address string) view {
	b.Helper()
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		b.Fatal(err)
	}
	return b.do(r)
}

// getUntil stops before the first redirect to an address that contains part,
// and returns that address.
func (b *browser) getUntil(address, part string) string {
	b.Helper()
	b.stop = part
	v := b.get(address)
	b.stop = ""
	to, err := v.Location()
	if err != nil {
		b.Fatalf("%s did not lead to %s: %d %s", address, part, v.StatusCode, v.body)
	}
	return to.String()
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	formInput  = regexp.MustCompile(`<input[^>]* name="([^"]*)"[^>]*>`)
	inputValue = regexp.MustCompile(` value="([^"]*)"`)
)

// submit sends the last form of a page with some fields filled in.
func (b *browser) submit(v view, fields map[string]string) view {
	b.Helper()
	at := strings.LastIndex(v.body, "<form")
	if at < 0 {
		b.Fatalf("no form at %s: %d\n%s", v.at, v.StatusCode, v.body)
	}
	rest := v.body[at:]
	form := url.Values{}
	for _, input := range formInput.FindAllStringSubmatch(rest, -1) {
		form.Set(input[1], "")
		if value := inputValue.FindStringSubmatch(input[0]); value != nil {
			form.Set(input[1], html.UnescapeString(value[1]))
		}
	}
	for name, value := range fields {
		form.Set(name, value)
	}
	to, err := v.at.Parse(html.UnescapeString(formAction.FindStringSubmatch(rest)[1]))
	if err != nil {
		b.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

// enter opens an address and logs in there.
func (b *browser) enter(address, username string) view {
	b.Helper()
	return b.password(b.get(address), username)
}

// password fills in the provider's form.
func (b *browser) password(v view, username string) view {
	b.Helper()
	return b.submit(v, map[string]string{"username": username, "password": "demo"})
}

// cookies returns what the browser holds for an origin, by name.
func (b *browser) cookies(origin string) map[string]string {
	u, _ := url.Parse(origin)
	values := map[string]string{}
	for _, c := range b.jar.Cookies(u) {
		values[c.Name] = c.Value
	}
	return values
}

func (b *browser) setCookie(origin, name, value string) {
	u, _ := url.Parse(origin)
	b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
}

func (v view) want(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(v.body, text) {
		t.Fatalf("at %s: %d\n%.2000s\nwant %q", v.at, v.StatusCode, v.body, text)
	}
}

func (v view) refused(t *testing.T, reason access.Reason) {
	t.Helper()
	v.want(t, "refused: "+string(reason))
}

func (s *stage) wantReasons(want ...access.Reason) {
	s.Helper()
	if got := s.reasons(); !slices.Equal(got, want) {
		s.Errorf("login events %v, want %v", got, want)
	}
}
