package authn

import (
	"slices"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/testidp"
)

// loggedIn makes a login and returns what the provider gave.
func (s *stage) loggedIn(username string) (access.Identity, session.Tokens) {
	s.Helper()
	b := s.browser()
	to := b.callback(app+"/", username)
	var kept session.Tokens
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateTokens = func(answer map[string]any) {
			kept.Refresh, _ = answer["refresh_token"].(string)
			kept.ID, _ = answer["id_token"].(string)
		}
	})
	b.get(to).want(s.T, "hello")
	s.corp.Heal()
	entry, err := s.sessions.Load(s.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
	if err != nil {
		s.Fatal(err)
	}
	return *entry.Identity, kept
}

func TestRefreshBringsNewGroupsAndARotatedToken(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	if err := s.corp.SetUser(testidp.User{Username: "alice", Password: "demo", Email: "new@corp.example", Groups: []string{"sales"}}); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(5 * time.Minute)
	id, fresh, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(id.Groups, []string{"sales"}) || id.Email != "new@corp.example" || !id.Login.Time.Equal(old.Login.Time) {
		t.Errorf("%+v", id)
	}
	if fresh.Refresh == tokens.Refresh || fresh.Refresh == "" || fresh.ID == "" || !fresh.Expires.After(s.clock.Now()) {
		t.Error("tokens were not renewed")
	}
	if _, _, err := s.auth.Refresh(t.Context(), "corp", fresh, &id); err != nil {
		t.Error(err)
	}
}

func TestInvalidGrantEndsTheSessionAndNothingElseDoes(t *testing.T) {
	for name, c := range map[string]struct {
		answer testidp.Answer
		want   access.Reason
	}{
		"invalid_grant":  {testidp.Fails(400, "invalid_grant"), access.SessionEnded},
		"invalid_client": {testidp.Fails(401, "invalid_client"), access.LoginFailed},
		"down":           {testidp.Fails(503, "server_error"), access.ProviderUnavailable},
		"throttled":      {testidp.Fails(429, "slow_down"), access.ProviderUnavailable},
		"not JSON":       {testidp.NotJSON(), access.ProviderUnavailable},
	} {
		s := world(t, nil)
		old, tokens := s.loggedIn("alice")
		s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.Refresh] = c.answer })
		_, _, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
		if got := access.ReasonOf(err); got != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestRefreshOfAnotherPersonEndsTheSession(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) { claims["sub"] = "bob" }
	})
	if _, _, err := s.auth.Refresh(t.Context(), "corp", tokens, &old); access.ReasonOf(err) != access.SessionEnded {
		t.Error(err)
	}
}

// A refresh in the background is not a person who logs in again.
func TestRefreshDoesNotMakeALoginYoungerOrStronger(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	s.clock.Advance(5 * time.Minute)
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) {
			claims["auth_time"], claims["acr"], claims["amr"] = s.clock.Now().Unix(), "phrh", []string{"hwk"}
		}
	})
	id, _, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
	if err != nil || !id.Login.Time.Equal(old.Login.Time) || id.Login.ACR != old.Login.ACR {
		t.Errorf("%+v, %v", id.Login, err)
	}
}

func TestRefreshWithoutIDTokenKeepsTheIdentity(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateTokens = func(answer map[string]any) { delete(answer, "id_token"); delete(answer, "refresh_token") }
	})
	id, fresh, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
	if err != nil || id.Subject != "alice" || !slices.Equal(id.Groups, old.Groups) || fresh.Refresh != tokens.Refresh || fresh.Expires.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
}

// The old refresh token is spent; losing the new one would end the session.
func TestRotatedTokenSurvivesUnreadableKeys(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	if err := s.corp.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(jose.MinPause)
	s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.JWKS] = testidp.EmptyKeys() })
	id, fresh, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
	if err != nil || fresh.Refresh == tokens.Refresh || id.Subject != "alice" {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestSessionIsRefreshedThroughItsOwnProvider(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	old, _ := func() (access.Identity, session.Tokens) {
		b := s.browser()
		b.enter(app+"/", "alice").want(t, "hello partners:alice")
		e, err := s.sessions.Load(t.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return *e.Identity, session.Tokens{}
	}()
	s.auth.Refresh(t.Context(), old.Provider, session.Tokens{Refresh: "whatever"}, &old)
	if s.corp.Requests(testidp.Refresh) != 0 || s.partners.Requests(testidp.Refresh) != 1 {
		t.Error("the refresh token went to another provider")
	}
	if _, _, err := s.auth.Refresh(t.Context(), "gone", session.Tokens{Refresh: "x"}, &old); access.ReasonOf(err) != access.SessionEnded {
		t.Error(err)
	}
}

func TestTokenLifetimes(t *testing.T) {
	c := &client{now: newClock().Now}
	for seconds, want := range map[int64]time.Duration{0: defaultTokenLife, -5: defaultTokenLife, 300: 5 * time.Minute, 1 << 60: defaultTokenLife} {
		for _, refresh := range []string{"r", ""} {
			kept := c.tokens(&grant{refresh: refresh, expiresIn: seconds})
			if got := kept.Expires.Sub(c.now()); got != want {
				t.Errorf("%d s: %s", seconds, got)
			}
		}
	}
}

// Some providers give a refresh token at a person's first login only. The
// session that has it goes on being refreshed after it logged in again.
func TestRefreshTokenOfAnEarlierLoginGoesOnBeingUsed(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateTokens = func(answer map[string]any) { delete(answer, "refresh_token") }
	})
	b.enter(app+access.LoginPath+"?switch=1", "alice").want(t, "hello")
	s.corp.Heal()
	s.clock.Advance(defaultTokenLife - time.Second)
	b.get(app+"/").want(t, "hello")
	s.clock.Advance(2 * time.Second) // the next one waits for the refresh
	b.get(app+"/").want(t, "hello")
	if s.corp.Requests(testidp.Refresh) == 0 {
		t.Error("the identity is not refreshed any more")
	}
}

func TestBadIDTokenAtRefreshChangesNothing(t *testing.T) {
	s := world(t, nil)
	old, tokens := s.loggedIn("alice")
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) { claims["aud"] = "other" }
	})
	id, _, err := s.auth.Refresh(t.Context(), "corp", tokens, &old)
	if access.ReasonOf(err) != access.TokenInvalid || !id.Nobody() {
		t.Errorf("%+v, %v", id, err)
	}
}
