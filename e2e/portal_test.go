package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// Everybody finds the applications that they can open from where they are, those
// that are locked with the way to unlock them, and their own sessions; and logs
// out of all of them.
func TestPortal(t *testing.T) {
	d := startDemo(t, t.TempDir())
	replace(t, d.configPath(), strings.Replace(d.configuration(), "  - id: help\n",
		"  - {id: vault, from: \""+d.url("vault", "")+"\", to: [\"http://127.0.0.1:1\"], allow: [{name: nobody, users: [\"demo:nobody\"]}]}\n  - id: help\n", 1))
	d.waitFor("configuration loaded", 1)
	at := func(app string) string { return d.url(app, "/.doorward/portal") }

	carol := newVisitor(t)
	p := carol.login(at("wiki"), "carol") // a stranger logs in, and comes back
	p.says(t, 200, "Your applications", "carol@example.com", "Wiki", "Help desk", "Billing", "not compliant", "FileVault is turned off", "This browser")
	if p.url.Path != "/.doorward/portal" || strings.Contains(p.body, "vault.localhost") {
		t.Errorf("%s:\n%s", p.url, p.body)
	}
	for _, link := range []string{d.url("echo", "/"), d.url("help", "/"), d.url("wiki", "/")} {
		if !strings.Contains(p.body, `href="`+link+`"`) {
			t.Errorf("no link to %s", link)
		}
	}
	newVisitor(t).login(at("echo"), "bob").says(t, 200, "Your device did not identify itself", "A managed device is needed", "You do not have access")

	alice, elsewhere := newVisitor(t), newVisitor(t)
	alice.login(at("echo"), "alice").says(t, 200, "A stronger login is needed", "Log in and open it")
	elsewhere.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	alice.confirm(alice.open(d.url("billing", "/"))).says(t, 200, "Invoice 1001")
	// Of the login host, the same.
	p = alice.open(at("auth"))
	p.says(t, 200, "Another browser or device", "auth.localhost")
	if strings.Contains(p.body, "Locked at the moment") {
		t.Errorf("the second factor is forgotten:\n%s", p.body)
	}
	answer := alice.once("GET", at("echo"), http.Header{"Accept": {"application/json"}}, nil)
	var doc struct {
		Apps []struct {
			Title string
			Open  bool
		}
		Sessions []struct {
			ID      string
			Origins []string
		}
	}
	if err := json.Unmarshal([]byte(answer.body), &doc); err != nil || len(doc.Apps) != 4 || len(doc.Sessions) != 2 {
		t.Errorf("%v: %s", err, answer.body)
	}
	for _, a := range doc.Apps {
		if !a.Open {
			t.Errorf("locked: %+v", a)
		}
	}

	// One other session ends, and this one goes on; somebody else's does not end.
	other := doc.Sessions[1]
	for _, id := range []string{sessionOf(t, carol, d), doc.Sessions[0].ID, "nothing", other.ID} {
		alice.send(alice.client, "POST", d.url("echo", "/.doorward/logout"), header(alice, d.url("echo", "")), strings.NewReader("session="+id)).says(t, 200, "Your applications")
	}
	if p := elsewhere.once("GET", d.url("wiki", "/"), elsewhere.header, nil); p.status != 302 {
		t.Errorf("the session that was ended goes on: %d", p.status)
	}
	d.wantIn(alice, "echo")
	d.wantIn(carol, "wiki")
	if p := alice.open(at("echo")); strings.Contains(p.body, "End this session") || !strings.Contains(p.body, "This browser") {
		t.Error(p.body)
	}
	elsewhere.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	// From another site it ends nothing.
	foreign := header(alice, "https://evil.example")
	foreign.Set("Sec-Fetch-Site", "cross-site")
	alice.open(at("echo")).says(t, 200, "Another browser or device")
	alice.once("GET", at("echo"), http.Header{"Accept": {"application/json"}}, nil).json(t, &doc)
	alice.send(alice.client, "POST", d.url("echo", "/.doorward/logout"), foreign, strings.NewReader("session="+doc.Sessions[1].ID))
	alice.send(alice.client, "GET", d.url("echo", "/.doorward/portal?session="+doc.Sessions[1].ID), alice.header, nil)
	d.wantIn(elsewhere, "wiki")

	// Everywhere.
	alice.send(alice.client, "POST", d.url("echo", "/.doorward/logout"), header(alice, d.url("echo", "")), strings.NewReader("everywhere=1")).says(t, 200, "logged out")
	if p := elsewhere.once("GET", d.url("wiki", "/"), elsewhere.header, nil); p.status != 302 {
		t.Errorf("the other session goes on: %d", p.status)
	}
	d.wantOut(alice)
}

// sessionOf is the id of the session that a visitor has at the wiki.
func sessionOf(t *testing.T, v *visitor, d *demo) string {
	t.Helper()
	var me struct{ Session struct{ ID string } }
	v.once("GET", d.url("wiki", "/.doorward/me"), http.Header{"Accept": {"application/json"}}, nil).json(t, &me)
	if me.Session.ID == "" {
		t.Fatal("no session")
	}
	return me.Session.ID
}

// header are those of a form that a page of an origin sends.
func header(v *visitor, origin string) http.Header {
	h := v.header.Clone()
	h.Set("Content-Type", "application/x-www-form-urlencoded")
	h.Set("Origin", origin)
	return h
}

// The portal in a browser: nothing sticks out, is too small or unreadable, every
// link and button is reached by the Tab key from top to bottom, and the last
// button logs out.
func TestBrowserPortal(t *testing.T) {
	tab := startBrowser(t)
	d, axe := startDemo(t, t.TempDir()), axeScript(t)
	do(t, tab, chromedp.Navigate(d.url("wiki", "/.doorward/portal")), loginForm("carol"), waitText("Your applications"))
	for _, look := range append(looks, look{"narrow", "light", 320}) {
		do(t, tab, look.emulate())
		do(t, tab, chromedp.Navigate(d.url("wiki", "/.doorward/portal")), waitText("Your applications"))
		shoot(t, tab, "portal-"+look.name)
		inspect(t, tab, axe, "portal "+look.name)
		if wrong := get(t, tab, chromedp.Evaluate[string](lookAtOrder)); wrong != "" {
			t.Errorf("%s: %s", look.name, wrong)
		}
	}
	do(t, tab, chromedp.Click(`//button[contains(., "everywhere")]`), waitText("logged out"))
	do(t, tab, chromedp.Navigate(d.url("wiki", "/.doorward/portal")), waitField("username"))
}

// lookAtNames returns what keeps a page from being used by ear and by keyboard:
// links and buttons without a name, or of one name and different targets; fields
// without a label; headings that skip a level.
const lookAtNames = `(() => {
  const wrong = [], byName = {};
  for (const e of document.querySelectorAll("a, button")) {
    const name = e.textContent.trim().replace(/\s+/g, " "), to = e.href || e.name + e.value;
    if (!name) wrong.push("a " + e.tagName + " without a name");
    if (name in byName && byName[name] != to) wrong.push(name + " leads to two places");
    byName[name] = to;
    if (e.tabIndex != 0) wrong.push(name + " is out of the order of the Tab key");
  }
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!e.labels.length) wrong.push("no label for " + e.name);
  }
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
    if (+h.tagName[1] > level + 1) wrong.push("a level is left out before " + h.textContent);
    level = +h.tagName[1];
  }
  for (const n of document.querySelectorAll("nav, section")) {
    if (!n.hasAttribute("aria-label") && !document.getElementById(n.getAttribute("aria-labelledby"))) wrong.push("a part of the page has no name");
  }
  return wrong.join("; ");
})()`

// lookAtOrder returns where the way of the Tab key is not the way of the eye, on a
// page of one column.
const lookAtOrder = `(() => {
  const wrong = [];
  let top = -1;
  for (const e of document.querySelectorAll("a:not(.skip), button, input:not([type=hidden])")) {
    const box = e.getBoundingClientRect();
    if (box.bottom < top) wrong.push(e.textContent.trim() + " comes after what is below it");
    top = box.top;
  }
  return wrong.join("; ");
})()`
