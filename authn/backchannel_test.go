package authn

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/testidp"
)

// backChannelWorld is a world whose providers tell us of logouts.
func backChannelWorld(t *testing.T, change func(*Options)) *stage {
	t.Helper()
	s := world(t, change)
	tell := func(o *testidp.Options) {
		o.Transport = s.net
		for i := range o.Clients {
			o.Clients[i].BackchannelLogoutURI = authURL + access.BackChannelPath
		}
	}
	s.corp = s.newProvider("https://corp.test", tell)
	s.partners = s.newProvider("https://partners.test", tell)
	return s
}

// post sends a body to an address without any cookie, as providers do.
func (s *stage) post(address, contentType, body string) *httptest.ResponseRecorder {
	s.Helper()
	r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	s.door(rec, r)
	return rec
}

const formType = "application/x-www-form-urlencoded"

// deliver sends a logout token, checks the form of the answer, and returns its status.
func (s *stage) deliver(token string) int {
	s.Helper()
	rec := s.post(authURL+access.BackChannelPath, formType, url.Values{"logout_token": {token}}.Encode())
	s.wantLogoutAnswer(rec)
	return rec.Code
}

func (s *stage) wantLogoutAnswer(rec *httptest.ResponseRecorder) {
	s.Helper()
	h := rec.Header()
	if h.Get("Cache-Control") != "no-store" || h.Get("Set-Cookie") != "" || h.Get("Location") != "" {
		s.Errorf("%d with headers %v", rec.Code, h)
	}
	if rec.Code == http.StatusOK {
		if rec.Body.Len() > 0 {
			s.Errorf("200 with a body: %s", rec.Body)
		}
		return
	}
	var answer map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || h.Get("Content-Type") != "application/json" ||
		answer["error"] == "" || answer["error_description"] == "" || len(answer) != 2 {
		s.Errorf("%d %s: %v", rec.Code, rec.Body, err)
	}
	if rec.Code == http.StatusBadRequest && answer["error"] != "invalid_request" {
		s.Errorf("400 %v", answer)
	}
}

// logouts returns the reasons of all logout events so far, and forgets all events.
func (s *stage) logouts() []access.Reason { return s.reasonsOf(access.EventLogout) }

func (s *stage) wantLogouts(want ...access.Reason) {
	s.Helper()
	if got := s.logouts(); !slices.Equal(got, want) {
		s.Errorf("logout events %v, want %v", got, want)
	}
}

// sidOf logs someone in and returns the provider's name for the session.
func (s *stage) sidOf(username string) (b *browser, sid string) {
	s.Helper()
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) { sid, _ = claims["sid"].(string) }
	})
	b = s.browser()
	b.enter(app+"/", username).want(s.T, "hello corp:"+username)
	s.corp.Fault(func(f *testidp.Faults) { f.MutateIDToken = nil })
	return b, sid
}

func (b *browser) loggedIn(address string) bool {
	b.Helper()
	b.stop = "/authorize"
	v := b.get(address)
	b.stop = ""
	return strings.HasPrefix(v.body, "hello ")
}

func (b *browser) wantLoggedIn(want bool, addresses ...string) {
	b.Helper()
	for _, address := range addresses {
		if got := b.loggedIn(address); got != want {
			b.Errorf("logged in at %s: %t", address, got)
		}
	}
}

// The provider ends a session, and with it end those of all applications and of
// the login host; others stay.
func TestProviderLogsOut(t *testing.T) {
	for name, change := range map[string]func(*Options){"with login host": withLoginHost, "without": nil} {
		t.Run(name, func(t *testing.T) {
			s := backChannelWorld(t, change)
			alice, phone, bob := s.browser(), s.browser(), s.browser()
			for _, b := range []*browser{alice, phone} {
				b.enter(app+"/", "alice").want(t, "hello corp:alice")
				b.get(wiki+"/").want(t, "hello corp:alice")
			}
			bob.enter(app+"/", "bob").want(t, "hello corp:bob")
			bob.get(wiki+"/").want(t, "hello corp:bob")
			s.logouts()
			if err := s.corp.LogoutUser(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			alice.wantLoggedIn(false, app+"/", wiki+"/")
			phone.wantLoggedIn(false, app+"/", wiki+"/")
			bob.wantLoggedIn(true, app+"/", wiki+"/")
			for _, reason := range s.logouts() {
				if reason != access.SessionEnded {
					t.Errorf("a logout with reason %s", reason)
				}
			}
		})
	}
}

// A token that names a session ends that one; one that names only the person
// ends all of the person's; one about a session that is gone is fine.
func TestLogoutTokenEndsWhatItNames(t *testing.T) {
	s := backChannelWorld(t, withLoginHost)
	laptop, sid := s.sidOf("alice")
	phone, _ := s.sidOf("alice")
	s.logouts()
	token := func(subject, sid string) string {
		t.Helper()
		token, err := s.corp.LogoutToken("doorward", subject, sid)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if code := s.deliver(token("", "no-such-session-here")); code != 200 {
		t.Errorf("a session that is gone: %d", code)
	}
	laptop.wantLoggedIn(true, app+"/")
	if code := s.deliver(token("alice", sid)); code != 200 {
		t.Errorf("sid: %d", code)
	}
	laptop.wantLoggedIn(false, app+"/", wiki+"/")
	phone.wantLoggedIn(true, app+"/", wiki+"/")
	if code := s.deliver(token("alice", "")); code != 200 {
		t.Errorf("sub: %d", code)
	}
	phone.wantLoggedIn(false, app+"/", wiki+"/")
	s.mu.Lock()
	var actors []string
	for _, e := range s.events {
		if e.Kind == access.EventLogout {
			actors = append(actors, e.Actor+" "+string(e.Reason)+" "+e.RequestID)
		}
	}
	s.mu.Unlock()
	if want := []string{" session_ended", "corp:alice session_ended", "corp:alice session_ended"}; len(actors) != 3 ||
		!strings.HasPrefix(actors[0], want[0]) || !strings.HasPrefix(actors[1], want[1]) || !strings.HasSuffix(actors[2], "req-"+access.BackChannelPath) {
		t.Errorf("events %q", actors)
	}
}

// A token counts once, also after a reload, also for a session begun meanwhile.
func TestLogoutTokenCountsOnce(t *testing.T) {
	s := backChannelWorld(t, withLoginHost)
	token, err := s.corp.LogoutToken("doorward", "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	if code := s.deliver(token); code != 200 {
		t.Fatal(code)
	}
	alice := s.browser()
	alice.enter(app+"/", "alice").want(t, "hello corp:alice")
	s.reload()
	for range 3 {
		if code := s.deliver(token); code != 400 {
			t.Errorf("repeated: %d", code)
		}
		s.clock.Advance(70 * time.Second) // past exp, then past what is remembered
	}
	alice.wantLoggedIn(true, app+"/")
}

// Of many deliveries of one token at the same time, one is accepted.
func TestLogoutTokenCountsOnceAtOnce(t *testing.T) {
	s := backChannelWorld(t, withLoginHost)
	token, err := s.corp.LogoutToken("doorward", "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	codes := make([]int, 8)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() {
			rec := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, authURL+access.BackChannelPath, strings.NewReader("logout_token="+token))
			r.Header.Set("Content-Type", formType)
			s.door(rec, r)
			codes[i] = rec.Code
		})
	}
	all.Wait()
	slices.Sort(codes)
	if want := []int{200, 400, 400, 400, 400, 400, 400, 400}; !slices.Equal(codes, want) {
		t.Errorf("answers %v", codes)
	}
}

func TestLogoutForm(t *testing.T) {
	s := backChannelWorld(t, nil)
	token := func() string {
		t.Helper()
		token, err := s.corp.LogoutToken("doorward", "alice", "")
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for name, c := range map[string]struct{ contentType, body string }{
		"no type":          {"", "logout_token=" + token()},
		"JSON":             {"application/json", `{"logout_token":"` + token() + `"}`},
		"a bare token":     {"application/jwt", token()},
		"multipart":        {"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"logout_token\"\r\n\r\n" + token() + "\r\n--x--\r\n"},
		"empty":            {formType, ""},
		"no token":         {formType, "token=" + token()},
		"an empty token":   {formType, "logout_token="},
		"two tokens":       {formType, "logout_token=" + token() + "&logout_token=" + token()},
		"a semicolon":      {formType, "logout_token=" + token() + ";x=1"},
		"a broken escape":  {formType, "logout_token=%zz"},
		"too large":        {formType, "logout_token=" + token() + "&filler=" + strings.Repeat("x", maxLogoutForm)},
		"in capitals":      {formType, "LOGOUT_TOKEN=" + token()},
		"a broken type":    {formType + "; charset", "logout_token=" + token()},
		"nothing but zero": {formType, "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := s.post(app+access.BackChannelPath, c.contentType, c.body)
			s.wantLogoutAnswer(rec)
			if rec.Code != 400 {
				t.Errorf("answered %d", rec.Code)
			}
			s.wantLogouts(access.BadRequest)
		})
	}
	if rec := s.post(app+access.BackChannelPath+"?logout_token="+token(), formType, ""); rec.Code != 400 {
		t.Errorf("a token in the address: %d", rec.Code)
	}
	if rec := s.post(app+access.BackChannelPath, formType+"; charset=UTF-8", "x=1&logout_token="+token()); rec.Code != 200 {
		t.Errorf("with another field: %d %s", rec.Code, rec.Body)
	}
	s.logouts()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
		rec := httptest.NewRecorder()
		s.door(rec, httptest.NewRequest(method, app+access.BackChannelPath+"?logout_token="+token(), nil))
		if rec.Code != 405 || rec.Header().Get("Allow") != "POST" {
			t.Errorf("%s: %d %v", method, rec.Code, rec.Header())
		}
		s.wantLogouts()
	}
}

// brokenStore fails on demand.
type brokenStore struct {
	store.Store
	mu              sync.Mutex
	get, put, erase bool
}

func (b *brokenStore) fail(get, put, erase bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.get, b.put, b.erase = get, put, erase
}

func (b *brokenStore) failing(which *bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *which {
		return errors.Join(store.ErrUnavailable, errors.New("the disk is gone"))
	}
	return nil
}

func (b *brokenStore) Get(ctx context.Context, key string) (store.Item, error) {
	if err := b.failing(&b.get); err != nil {
		return store.Item{}, err
	}
	return b.Store.Get(ctx, key)
}

func (b *brokenStore) Put(ctx context.Context, item store.Item) (uint64, error) {
	if err := b.failing(&b.put); err != nil {
		return 0, err
	}
	return b.Store.Put(ctx, item)
}

func (b *brokenStore) Delete(ctx context.Context, key string, version uint64) error {
	if err := b.failing(&b.erase); err != nil {
		return err
	}
	return b.Store.Delete(ctx, key, version)
}

// While the store cannot tell, cannot remember or cannot end sessions, no logout
// is confirmed; the provider tries again, and the same token still counts.
func TestLogoutFailsClosed(t *testing.T) {
	s := backChannelWorld(t, withLoginHost)
	memory := store.NewMemory(s.clock.Now)
	t.Cleanup(func() { memory.Close() })
	broken := &brokenStore{Store: memory}
	sessions, err := session.New(session.Options{Store: broken, Now: s.clock.Now, Emit: s.emit})
	if err != nil {
		t.Fatal(err)
	}
	s.sessions.Close()
	s.sessions, s.options.Sessions = sessions, sessions // closed with the stage
	s.reload()
	alice := s.browser()
	alice.enter(app+"/", "alice").want(t, "hello corp:alice")
	s.logouts()
	token, err := s.corp.LogoutToken("doorward", "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, fail := range []struct{ get, erase, put bool }{{get: true}, {erase: true}, {put: true}} {
		broken.fail(fail.get, fail.put, fail.erase)
		if code := s.deliver(token); code != http.StatusServiceUnavailable {
			t.Errorf("%+v: answered %d", fail, code)
		}
		s.wantLogouts(access.StoreUnavailable)
	}
	broken.fail(false, false, false)
	if code := s.deliver(token); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
	alice.wantLoggedIn(false, app+"/", wiki+"/")
	if code := s.deliver(token); code != 400 {
		t.Errorf("repeated: %d", code)
	}
}

// A provider whose keys cannot be read is told to try again, not that its token
// is bad.
func TestLogoutWhileKeysAreUnknown(t *testing.T) {
	s := backChannelWorld(t, nil)
	token, err := s.corp.LogoutToken("doorward", "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	s.corp.Fault(func(f *testidp.Faults) { f.Down = true })
	if code := s.deliver(token); code != http.StatusServiceUnavailable {
		t.Errorf("answered %d", code)
	}
	s.wantLogouts(access.ProviderUnavailable)
}

// With two clients at one issuer the token says which of them it is for.
func TestLogoutTokenForTheSecondClientOfAnIssuer(t *testing.T) {
	s := backChannelWorld(t, func(o *Options) {
		second := corpProvider()
		second.ID, second.ClientID, second.ClientSecret = "second", "dw", access.NewSecret("p")
		o.Providers = append(o.Providers, second)
	})
	for _, client := range []string{"doorward", "dw"} {
		token, err := s.corp.LogoutToken(client, "alice", "")
		if err != nil {
			t.Fatal(err)
		}
		if code := s.deliver(token); code != 200 {
			t.Errorf("%s: answered %d", client, code)
		}
	}
	token, err := s.corp.LogoutToken("public", "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	if code := s.deliver(token); code != 400 {
		t.Errorf("another client: answered %d", code)
	}
}
