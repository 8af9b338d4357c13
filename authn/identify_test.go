package authn

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
)

// loggedInRequest is a request with a live session, without any provider.
func loggedInRequest(t testing.TB) (*Authenticator, *http.Request, *access.Request, *store.Memory) {
	t.Helper()
	clk := newClock()
	memory := store.NewMemory(clk.Now)
	sessions, err := session.New(session.Options{Store: memory, Now: clk.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sessions.Close(); memory.Close() })
	a, err := New(Options{
		Providers: []Provider{corpProvider()}, Owns: func(string) bool { return true },
		Sessions: sessions, FlowKey: make([]byte, 32), Now: clk.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := sessions.Start(t.Context(), session.Start{
		Identity: access.Identity{Provider: "corp", Issuer: "https://corp.test", Subject: "8f1c"}, Origin: app,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, app+"/", nil)
	r.Header.Set("Cookie", "theme=dark; "+CookieName("https")+"="+secret+"; lang=de")
	return a, r, &access.Request{Time: clk.Now(), Scheme: "https", Host: "app.corp.test"}, memory
}

func TestIdentifySaysWhoAndSince(t *testing.T) {
	a, r, req, _ := loggedInRequest(t)
	if err := a.Identify(r, req); err != nil {
		t.Fatal(err)
	}
	if req.Identity.User() != "corp:8f1c" || req.Session.ID == "" || !req.Session.Created.Equal(req.Time) || !req.Session.Expires.After(req.Time) {
		t.Errorf("%+v", req)
	}
	if strings.Contains(r.Header.Get("Cookie"), req.Session.ID) {
		t.Error("the session's name is part of the secret")
	}
}

// Not being able to answer is an error, never "nobody" and never a login loop.
func TestUnreadableStoreIsAnError(t *testing.T) {
	a, r, req, memory := loggedInRequest(t)
	memory.Close()
	r.Header.Set("Cookie", CookieName("https")+"="+strings.Repeat("A", 43))
	if err := a.Identify(r, req); access.ReasonOf(err) != access.StoreUnavailable || !req.Identity.Nobody() {
		t.Errorf("%v", err)
	}
}

func BenchmarkIdentify(b *testing.B) {
	a, r, req, _ := loggedInRequest(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Identify(r, req); err != nil {
			b.Fatal(err)
		}
	}
}

// The short way to a cookie finds what the long one does, or leaves it to that.
func FuzzPlainCookie(f *testing.F) {
	for _, header := range []string{"", "doorward=abc", "a=b; doorward=a-b_c.9; c=d", "doorward=abc; doorward=abc", "doorward=abc; doorward=abd", "a=b;doorward=abc",
		"doorward=\"abc\"", "doorward=a b", "doorward =abc", "xdoorward=abc", "doorwardx=abc", "doorward=abc ", "doorward", "doorward=", "x=\"; doorward=abc\"", "=doorward=abc",
		"a=b; doorward=abc; __Host-doorward=abd", "doorward=abc\tx", "; doorward=abc", ";; doorward=abc;;", "DOORWARD=abc",
		"doorward=abc" + strings.Repeat(";", 2900), "doorward=abc" + strings.Repeat(";", 3500)} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		lines := []string{header}
		value, plain := plainCookie(lines, "doorward")
		if !plain {
			return
		}
		want := ""
		for _, c := range (&http.Request{Header: http.Header{"Cookie": lines}}).CookiesNamed("doorward") {
			if want != "" {
				t.Errorf("%q: there are several", header)
			}
			want = c.Value
		}
		if value != want {
			t.Errorf("%q: %q, want %q", header, value, want)
		}
	})
}

func TestPlainCookieIsFound(t *testing.T) {
	secret := strings.Repeat("aZ09-_", 7)
	for header, want := range map[string]string{"doorward=" + secret: secret, "a=b; doorward=" + secret + "; c=d": secret, "a=b": ""} {
		if value, plain := plainCookie([]string{header}, "doorward"); value != want || !plain {
			t.Errorf("%q: %q, %t", header, value, plain)
		}
	}
}
