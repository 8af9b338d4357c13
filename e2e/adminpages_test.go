package e2e

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/doorward/doorward/internal/access"
)

// adminPages are all of them, with what each one says.
func adminPages(session, decision, device string) map[string]string {
	return map[string]string{
		"/": "How long it takes", "/decisions": "fit, among", "/decision?id=" + decision: "Every rule of the route",
		"/sessions": "carol@example.com", "/session?id=" + session: "End it", "/devices": "carol", "/device?id=" + device: "Profiles and tiers",
		"/routes": "Leads to", "/reports": "Rules that only report", "/revocations": "In force", "/config": "server.admin.token", "/actions": "configuration",
	}
}

// The pages in a browser: everything can be read, reached and used, on a desk and
// on a phone, by day and by night.
func TestBrowserAdminPages(t *testing.T) {
	tab := startBrowser(t)
	d := startDemo(t, t.TempDir())
	axe := axeScript(t)
	carol := newVisitor(t)
	carol.login(d.url("wiki", "/plans"), "carol").says(t, 200, "Wiki")
	carol.open(d.url("billing", "/"))
	newVisitor(t).login(d.url("wiki", "/"), "bob")
	refused := d.waitForEvent(func(e *access.Event) bool {
		return e.Kind == access.EventDecision && e.Request.Route == "billing" && e.Decision.Reason != access.LoginRequired && e.Decision.Reason != access.ACRInsufficient
	})
	at := func(path string) string { return d.url("admin", path) }

	do(t, tab, chromedp.Navigate(at("/")), loginForm("alice"), waitField("otp"), chromedp.Submit(`input[name=otp]`), waitText("How long it takes"))
	for path, says := range adminPages(refused.Request.Session.ID, refused.Request.ID, refused.Request.Device.ID) {
		name, _, _ := strings.Cut(strings.Trim(path, "/"), "?")
		if name == "" {
			name = "overview"
		}
		for _, look := range looks {
			do(t, tab, look.emulate(), chromedp.Navigate(at(path)), waitText(says))
			shoot(t, tab, "admin-"+name+"-"+look.name)
			inspect(t, tab, axe, path+" "+look.name)
		}
	}
}

// look is a way of looking at a page.
type look struct {
	name, scheme string
	width        int64
}

var looks = []look{{"desk", "light", 1280}, {"desk-dark", "dark", 1280}, {"phone", "light", 390}, {"phone-dark", "dark", 390}}

func (l look) emulate() step {
	return chromedp.Steps(chromedp.EmulateViewport(l.width, 844), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		features := []map[string]string{{"name": "prefers-color-scheme", "value": l.scheme}}
		if err := target.Call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": features}, nil); err != nil {
			return err
		}
		// As if the window were in front, so that what has the focus shows it.
		return target.Call(ctx, "Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil)
	}))
}

// Who administers steps up first: an administrator without a second factor is
// refused, one with it is let in under their own name, and nobody gets in with
// what was made for another application.
func TestAdministratorsStepUp(t *testing.T) {
	d := startDemo(t, t.TempDir())
	admin := d.url("admin", "/")
	before := d.configuration()
	before = strings.Replace(before, "admins: {provider: demo, claim_groups: [finance]}", "admins: {provider: demo, claim_groups: [finance, sales]}", 1)
	replace(t, d.configPath(), before)
	d.waitFor("configuration loaded", 1)
	carol, bob, dave, alice := newVisitor(t), newVisitor(t), newVisitor(t), newVisitor(t)
	carol.login(d.url("wiki", "/"), "carol").says(t, 200, "Wiki")
	alice.login(d.url("echo", "/"), "alice")

	// Bob administers, and has no second factor; Dave does not administer.
	bob.login(d.url("echo", "/"), "bob").says(t, 200)
	bob.open(admin).says(t, 403, "The stronger login did not happen")
	dave.login(admin, "dave").says(t, 403, "You do not have access")
	// Alice has one, and did not use it yet.
	if p := alice.once("GET", admin, alice.header, nil); p.status != 302 || !strings.Contains(p.header.Get("Location"), "/.doorward/login") {
		t.Errorf("%d to %s", p.status, p.header.Get("Location"))
	}
	for _, path := range []string{"api/v1/sessions", "session/revoke"} {
		p := alice.once("POST", admin+path, http.Header{"Accept": {"application/json"}, "Origin": {strings.TrimSuffix(admin, "/")}}, nil)
		if p.status != 401 || strings.Contains(p.body, "carol") {
			t.Errorf("%s: %d %s", path, p.status, p.body)
		}
	}
	if p := alice.once("GET", "http://"+d.admin+"/", alice.header, nil); p.status != 303 || p.header.Get("Location") != "/login" {
		t.Errorf("without the route: %d %s", p.status, p.body)
	}

	// What an application was told of Alice opens nothing here.
	var seen struct{ Headers http.Header }
	alice.open(d.url("echo", "/")).json(t, &seen)
	told := seen.Headers.Get("Doorward-Assertion")
	if told == "" {
		t.Fatal("the application was told nothing")
	}
	for _, path := range []string{"/", "/api/v1/sessions", "/sessions", "/healthz"} {
		p := alice.once("GET", "http://"+d.admin+path, http.Header{"Doorward-Assertion": {told}}, nil)
		if p.status != 403 || strings.Contains(p.body, "carol") {
			t.Errorf("%s: %d %s", path, p.status, p.body)
		}
	}
	// Nor does what she says of herself.
	forged := alice.header.Clone()
	forged.Set("Doorward-Assertion", told)
	if p := alice.once("GET", admin, forged, nil); p.status != 302 {
		t.Errorf("forged: %d", p.status)
	}

	alice.confirm(alice.open(admin))
	alice.open(admin).says(t, 200, "Overview", "alice@example.com", "Ready")
	var list struct{ Sessions []access.SessionInfo }
	alice.once("GET", admin+"api/v1/sessions?user=demo:carol", http.Header{"Accept": {"application/json"}}, nil).json(t, &list)
	if len(list.Sessions) != 1 {
		t.Fatalf("%+v", list)
	}
	end := func() page {
		return alice.submit(alice.open(admin+"session?id="+list.Sessions[0].ID), map[string]string{"why": "laptop lost"})
	}

	// Once her group only looks, she ends nobody's session.
	replace(t, d.configPath(), strings.Replace(before, "route: admin}", "route: admin, view_groups: [admins]}", 1))
	d.waitFor("configuration loaded", 2)
	end().says(t, 403, "you may look, and change nothing")
	d.wantIn(carol, "wiki")
	replace(t, d.configPath(), before)
	d.waitFor("configuration loaded", 3)
	end().says(t, 200, "The session has ended")
	d.wantOut(carol)
	e := d.waitForEvent(func(e *access.Event) bool { return e.Kind == access.EventAdmin && e.Reason == access.Allowed })
	if e.Actor != "demo:alice" || e.Why != "laptop lost" || e.Session != list.Sessions[0].ID || strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}
	refused := d.waitForEvent(func(e *access.Event) bool { return e.Kind == access.EventAdmin && e.Reason == access.NotAllowed })
	if refused.Actor != "demo:alice" || refused.Why != "laptop lost" {
		t.Errorf("%+v", refused)
	}
	alice.open(admin+"actions").says(t, 200, "session revoked", "demo:alice", "laptop lost")

	// The route is gone: what it had let in is nobody.
	replace(t, d.configPath(), strings.Replace(before, ", route: admin}", "}", 1))
	d.waitFor("configuration loaded", 4)
	alice.open(admin).says(t, 403, "This route does not lead to the admin pages")
}

// In the night in which nobody gets through the door, the token and a tunnel to
// the machine are enough: in a browser, with a name and for a while.
func TestBrowserBreakGlass(t *testing.T) {
	tab := startBrowser(t)
	d, axe := startDemo(t, t.TempDir()), axeScript(t)
	newVisitor(t).login(d.url("wiki", "/"), "carol")
	at := func(path string) string { return "http://" + d.admin + path }
	login := func(token string) step {
		return chromedp.Steps(waitField("token"), chromedp.SetValue(`input[name=name]`, "Night shift"),
			chromedp.SetValue(`input[name=token]`, token), chromedp.Submit(`input[name=token]`))
	}
	for _, look := range looks {
		do(t, tab, look.emulate(), chromedp.Navigate(at("/sessions")), waitField("token"))
		shoot(t, tab, "admin-login-"+look.name)
		inspect(t, tab, axe, "/login "+look.name)
	}
	do(t, tab, login("wrong"), waitText("The token is wrong"))
	inspect(t, tab, axe, "/login after a mistake")
	do(t, tab, login(strings.TrimSpace(readFile(t, filepath.Join(d.dir, "admin-token")))), waitText("How long it takes"))
	do(t, tab, chromedp.Click(`//nav//a[contains(., "Sessions")]`), waitText("carol@example.com"))
	do(t, tab, chromedp.Click(`//main//a[contains(., "carol@example.com")]`), waitText("End it"))
	do(t, tab, chromedp.SetValue(`input[name=why]`, "stolen"), chromedp.Click(`//button[contains(., "End the session")]`), waitText("The session has ended"))
	e := d.waitForEvent(func(e *access.Event) bool { return e.Kind == access.EventAdmin && e.Why == "stolen" })
	if e.Actor != "Night shift" || e.Reason != access.Allowed || !strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}
	if cookies := get(t, tab, chromedp.Evaluate[string](`document.cookie`)); cookies != "" {
		t.Errorf("a script can read %s", cookies)
	}
	do(t, tab, chromedp.Click(`//button[contains(., "Log out")]`), waitField("token"))
	do(t, tab, chromedp.Navigate(at("/actions")), waitField("token"))
}
