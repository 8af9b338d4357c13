package authn

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestRouteDecidesTheProvider(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	s.browser().enter(app+"/x", "bob").want(t, "hello partners:bob at /x")
}

func TestVisitorChoosesAndIsRemembered(t *testing.T) {
	for _, change := range []func(*Options){withTwoProviders, func(o *Options) { withTwoProviders(o); withLoginHost(o) }} {
		s := world(t, change)
		b := s.browser()
		v := b.get(app + "/x?y=z")
		if v.at.Path != access.LoginPath {
			t.Fatalf("at %s: %s", v.at, v.body)
		}
		v.want(t, "Corp")
		v.want(t, "partners")
		_, rest, _ := strings.Cut(v.body, `href="`+access.LoginPath)
		link, _, _ := strings.Cut(rest, `"`)
		choice, err := v.at.Parse(access.LoginPath + strings.ReplaceAll(link, "&amp;", "&"))
		if err != nil {
			t.Fatal(err)
		}
		b.enter(choice.String(), "alice").want(t, "hello corp:alice at /x?y=z")
		// Next time the same provider is used without asking, until another
		// account is asked for.
		origin := v.at.Scheme + "://" + v.at.Host
		b.setCookie(app, CookieName("https"), "")
		b.setCookie(origin, CookieName("https"), "")
		b.get(app+"/again").want(t, "hello corp:alice at /again")
		b.get(app+access.LoginPath+"?switch=1").want(t, "partners")
	}
}

// Neither a link on some other page nor a wrong click ties a browser to a
// provider.
func TestChoiceThatLedToNoLoginIsNotRemembered(t *testing.T) {
	for _, change := range []func(*Options){withTwoProviders, func(o *Options) { withTwoProviders(o); withLoginHost(o) }} {
		s := world(t, change)
		b := s.browser()
		b.getUntil(app+access.LoginPath+"?provider=partners", "partners.test/authorize")
		if v := b.get(app + "/x"); v.at.Path != access.LoginPath {
			t.Errorf("at %s instead of the chooser", v.at)
		}
	}
}

func TestMailAddressChoosesTheProvider(t *testing.T) {
	s := world(t, withTwoProviders)
	b := s.browser()
	v := b.get(app + "/x")
	b.submit(v, map[string]string{"email": "someone@unknown.example"}).want(t, "No way to log in is set up")
	for _, bad := range []string{"@partner.example", "partner.example", "a@corp.example@partner.example.evil"} {
		b.submit(v, map[string]string{"email": bad}).want(t, "No way to log in is set up")
	}
	b.stop = "partners.test/authorize"
	v = b.submit(v, map[string]string{"email": "Someone@Partner.Example"})
	to, err := v.Location()
	if err != nil {
		t.Fatal(v.body)
	}
	if to.Host != "partners.test" || to.Query().Get("login_hint") != "Someone@Partner.Example" {
		t.Errorf("sent to %s", to)
	}
	b.stop = ""
	b.enter(to.String(), "bob").want(t, "hello partners:bob at /x")
}

func TestSwitchingAccounts(t *testing.T) {
	for _, change := range []func(*Options){func(*Options) {}, withLoginHost} {
		s := world(t, change)
		b := s.browser()
		b.enter(app+"/", "alice").want(t, "hello corp:alice")
		address := app + access.LoginPath + "?switch=1&return=" + url.QueryEscape("/x?y=1")
		to, _ := url.Parse(b.getUntil(address, "corp.test/authorize"))
		if got := to.Query().Get("prompt"); got != "select_account" {
			t.Errorf("prompt %q", got)
		}
		b.enter(address, "bob").want(t, "hello corp:bob at /x?y=1")
	}
}

func TestLoginLinkOfALiveSessionJustReturns(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	b.get(app+access.LoginPath+"?return=/there").want(t, "hello corp:alice at /there")
	b.get(app+access.LoginPath).want(t, "hello corp:alice at /")
}

func TestLoginLinkLeadsNowhereElse(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	for _, to := range badReturns {
		for _, again := range []string{"", "&again=1", "&switch=1"} {
			b.get(app+access.LoginPath+"?return="+url.QueryEscape(to)+again).refused(t, access.ReturnURLInvalid)
			if len(b.trail) != 0 {
				t.Errorf("%q was sent to %s", to, b.trail)
			}
		}
	}
}

func TestLoginFormIsBounded(t *testing.T) {
	s := world(t, withTwoProviders)
	r, _ := http.NewRequest(http.MethodPost, app+access.LoginPath, strings.NewReader("email="+strings.Repeat("a", maxForm)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	s.browser().do(r).refused(t, access.BadRequest)
	r, _ = http.NewRequest(http.MethodDelete, app+access.LoginPath, nil)
	s.browser().do(r).refused(t, access.BadRequest)
	s.browser().get(app+access.LoginPath+"?provider=nobody").refused(t, access.BadRequest)
	s.browser().get(app+access.Prefix+"other").refused(t, access.NoRoute)
}
