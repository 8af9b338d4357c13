package page

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/doorward/doorward/internal/access"
)

func TestEveryReasonHasItsPage(t *testing.T) {
	for _, reason := range access.Reasons() {
		rec := httptest.NewRecorder()
		Refuse(rec, false, Refusal{Reason: reason, RequestID: incident})
		want := reason.Info()
		if want.Status < 400 {
			want = access.InternalError.Info()
		}
		doc := parsePage(t, string(reason), rec)
		if got := text(find(doc, "h1")[0]); got != want.Title {
			t.Errorf("%s: headline %q", reason, got)
		}
		if body := text(doc); !strings.Contains(body, want.Text) || !strings.Contains(body, want.Cure) || !strings.Contains(body, incident) {
			t.Errorf("%s: text, cure or incident number is missing", reason)
		}
		if rec.Code != want.Status {
			t.Errorf("%s: status %d, want %d", reason, rec.Code, want.Status)
		}
	}
}

func TestPagesAreSoundHTML(t *testing.T) {
	for name, rec := range samples() {
		t.Run(name, func(t *testing.T) {
			doc := parsePage(t, name, rec)
			if lang := attr(find(doc, "html")[0], "lang"); lang != "en" {
				t.Errorf("lang=%q", lang)
			}
			for _, tag := range []string{"title", "main", "h1"} {
				if n := find(doc, tag); len(n) != 1 || text(n[0]) == "" {
					t.Errorf("%d <%s>, want one with text", len(n), tag)
				}
			}
			for _, svg := range find(doc, "svg") {
				if attr(svg, "aria-hidden") != "true" && attr(svg.Parent, "aria-hidden") != "true" {
					t.Error("a picture without a name is read out")
				}
			}
			for _, tag := range []string{"a", "button"} {
				for _, n := range find(doc, tag) {
					if text(n) == "" {
						t.Errorf("<%s> without a label", tag)
					}
				}
			}
			ids := map[string]bool{}
			each(doc, func(n *html.Node) {
				if id := attr(n, "id"); id != "" {
					if ids[id] {
						t.Errorf("id %s twice", id)
					}
					ids[id] = true
				}
			})
			each(doc, func(n *html.Node) {
				for _, ref := range []string{"for", "aria-labelledby", "aria-describedby"} {
					if id := attr(n, ref); id != "" && !ids[id] {
						t.Errorf("%s=%q refers to nothing", ref, id)
					}
				}
			})
			labels := find(doc, "label")
			for _, input := range find(doc, "input") {
				if attr(input, "type") != "hidden" && !slices.ContainsFunc(labels, func(l *html.Node) bool { return attr(l, "for") == attr(input, "id") }) {
					t.Errorf("input %s has no label", attr(input, "name"))
				}
			}
		})
	}
}

// The page works where nothing may be loaded: no script, no external asset, no
// inline style except the one whose hash the policy names.
func TestPagesLoadNothing(t *testing.T) {
	for name, rec := range samples() {
		doc := parsePage(t, name, rec)
		for _, tag := range []string{"script", "link", "img", "iframe", "object", "embed", "base", "video"} {
			if len(find(doc, tag)) > 0 {
				t.Errorf("%s: has <%s>", name, tag)
			}
		}
		each(doc, func(n *html.Node) {
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "src" {
					t.Errorf("%s: <%s %s>", name, n.Data, a.Key)
				}
			}
		})
		styles := find(doc, "style")
		if len(styles) != 1 {
			t.Fatalf("%s: %d style sheets", name, len(styles))
		}
		css := styles[0].FirstChild.Data
		if strings.Contains(css, "url(") || strings.Contains(css, "@import") {
			t.Errorf("%s: the style sheet loads something", name)
		}
		sum := sha256.Sum256([]byte(css))
		policy := rec.Header().Get("Content-Security-Policy")
		if !strings.Contains(policy, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
			t.Errorf("%s: the policy names another style: %s", name, policy)
		}
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action "} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: no %s in %s", name, part, policy)
			}
		}
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := rec.Header().Get(header); got != want {
				t.Errorf("%s: %s: %q", name, header, got)
			}
		}
	}
}

// Chromium applies form-action to the redirects after a form, and sends
// "Origin: null" from a page without referrer; both would break logging out.
func TestFormsMayReachTheProvider(t *testing.T) {
	for name, rec := range samples() {
		forms := len(find(parsePage(t, name, rec), "form")) > 0
		open := strings.Contains(rec.Header().Get("Content-Security-Policy"), "form-action 'self' https: http:")
		shut := strings.Contains(rec.Header().Get("Content-Security-Policy"), "form-action 'none'")
		referrer := rec.Header().Get("Referrer-Policy")
		if forms && (!open || referrer != "same-origin") || !forms && (!shut || referrer != "no-referrer") {
			t.Errorf("%s: forms=%v, %s, Referrer-Policy: %s", name, forms, rec.Header().Get("Content-Security-Policy"), referrer)
		}
	}
}

func TestNeedsSayWhatIsMissingAndWhereToFixIt(t *testing.T) {
	pages := samples()
	for name, want := range map[string][]string{
		"device-missing": {"A managed device is needed", "How to fix this"},
		"device-several": {"Firewall is turned off", "The disk is not encrypted", "Needed 15.5 Found 14.2",
			"According to intune, which last heard of the device 5 hours ago (2026-11-23 07:00 UTC).", "A stronger login is needed"},
		"device-too-old": {"Device last seen 30 days ago (2026-10-24)", "According to inventory", "Logged in as dave@example.com"},
		"denied-by-rule": {"Deleting is possible only from DE or AT."},
		"not-now":        {"You may use this application, but not at this time."},
	} {
		body := text(parsePage(t, name, pages[name]))
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s: no %q in %q", name, w, body)
			}
		}
	}
	if links := hrefs(parsePage(t, "", pages["device-several"])); !slices.Contains(links, "https://it.example.com/update") {
		t.Error("no link to the fix:", links)
	}
}

// Whoever no rule is for must not learn which rules, groups or values exist.
func TestRefusalTellsNothingAboutRules(t *testing.T) {
	d := &access.Decision{
		Rule: "allow/secret-rule", Message: "not of a deny rule", Policy: "v-secret",
		Nearest: &access.NearMiss{Rule: "allow/secret-rule", Missing: []access.Miss{
			{Condition: "groups", Want: "secret-board", Got: "secret-eng"},
			{Condition: "time", Want: "secret-hours"}}},
		Shadow: []access.Shadow{{Rule: "secret-shadow"}},
	}
	rf := Refusal{Reason: access.NotAllowed, Decision: d}
	html, program := httptest.NewRecorder(), httptest.NewRecorder()
	Refuse(html, false, rf)
	Problem(program, rf)
	for _, rec := range []*httptest.ResponseRecorder{html, program} {
		body := rec.Body.String()
		if strings.Contains(body, "secret") || strings.Contains(body, "not of a deny rule") || strings.Contains(body, "but not at this time") {
			t.Error(body)
		}
	}
}

func TestHostileStringsAreEscaped(t *testing.T) {
	const evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp\x00\x1b[31m{{.}}"
	d := &access.Decision{Outcome: access.Challenge, Message: evil, Needs: []access.Need{{
		Reason: access.Reason(evil), Want: evil, Got: evil, Fix: "javascript:alert(1)", Source: evil, Details: []string{evil, evil}}}}
	rf := Refusal{Reason: access.DeniedByRule, RequestID: evil, App: evil, User: evil, Decision: d, Instance: evil,
		Links: []Link{{Text: evil, URL: "https://ok.example/" + evil}, {Text: evil, URL: "/ok?" + "x='\"><script>"}, {Text: "bad", URL: "data:text/html,x"}}}
	pages := map[string]func(w http.ResponseWriter){
		"refuse": func(w http.ResponseWriter) { Refuse(w, false, rf) },
		"chooser": func(w http.ResponseWriter) {
			Chooser(w, ChooserData{App: evil, Choices: []Choice{{evil, "/x?" + evil}, {evil, "vbscript:x"}}, EmailAction: "/y?<script>", Email: evil, Error: evil, Hidden: map[string]string{evil: evil}})
		},
		"signedout": func(w http.ResponseWriter) {
			SignedOut(w, SignedOutData{User: evil, AgainURL: "javascript:alert(1)"})
		},
		"confirm": func(w http.ResponseWriter) {
			ConfirmLogout(w, ConfirmData{User: evil, Action: "/x", Everywhere: true, Hidden: map[string]string{evil: evil}, CancelURL: "//evil.example"})
		},
	}
	for name, show := range pages {
		rec := httptest.NewRecorder()
		show(rec)
		doc := parsePage(t, name, rec)
		if len(find(doc, "script"))+len(find(doc, "img")) > 0 {
			t.Errorf("%s: an element was injected", name)
		}
		each(doc, func(n *html.Node) {
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: attribute %s was injected", name, a.Key)
				}
			}
		})
		for _, link := range hrefs(doc) {
			if webURL(link) == "" {
				t.Errorf("%s: links to %q", name, link)
			}
		}
		for _, input := range find(doc, "input") {
			if attr(input, "type") == "hidden" {
				continue // a value the browser returns as it is
			}
			if strings.ContainsAny(attr(input, "value"), "\u202e\x1b\x00") {
				t.Errorf("%s: invisible characters in a field", name)
			}
		}
		if strings.ContainsAny(text(doc), "\u202e\x1b\x00") {
			t.Errorf("%s: invisible characters in the text", name)
		}
	}
}

func TestHeadHasHeadersOnly(t *testing.T) {
	rf := Refusal{Reason: access.NotAllowed, RequestID: incident}
	full, head := httptest.NewRecorder(), httptest.NewRecorder()
	Refuse(full, false, rf)
	Refuse(head, true, rf)
	if head.Body.Len() != 0 || head.Code != http.StatusForbidden || head.Header().Get("Content-Length") != full.Header().Get("Content-Length") {
		t.Errorf("%d, %d bytes, %v", head.Code, head.Body.Len(), head.Header())
	}
}

func TestProblemDocument(t *testing.T) {
	rec := httptest.NewRecorder()
	rec.Header().Set("Content-Encoding", "gzip") // left behind by a handler that failed
	Problem(rec, Refusal{Reason: access.DeviceOSTooOld, RequestID: incident, User: "carol@example.com", Decision: &access.Decision{
		Outcome: access.Challenge, Rule: "secret", Needs: []access.Need{{Reason: access.DeviceOSTooOld, Profile: "secret", Want: "15.5", Got: "14.2",
			Fix: "https://it.example.com/update", Source: "secret", Details: []string{"secret"}, Since: noon}}}})
	if rec.Code != 403 || rec.Header().Get("Content-Type") != "application/problem+json" || rec.Header().Get("Cache-Control") != "no-store" || rec.Header().Get("Content-Encoding") != "" {
		t.Error(rec.Code, rec.Header())
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"type": "urn:doorward:reason:device_os_too_old", "status": 403.0, "reason": "device_os_too_old",
		"title": access.DeviceOSTooOld.Info().Title, "detail": access.DeviceOSTooOld.Info().Text, "instance": "urn:uuid:" + incident} {
		if got[key] != want {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	need := got["needs"].([]any)[0].(map[string]any)
	if need["want"] != "15.5" || need["got"] != "14.2" || need["fix"] != "https://it.example.com/update" {
		t.Error(need)
	}
	if strings.Contains(rec.Body.String(), "secret") || strings.Contains(rec.Body.String(), "carol") {
		t.Error(rec.Body)
	}
}

func TestStatusIsAlwaysARefusal(t *testing.T) {
	for _, c := range []struct {
		rf   Refusal
		want int
	}{
		{Refusal{}, 500}, {Refusal{Reason: access.Allowed}, 500}, {Refusal{Reason: "made up"}, 500},
		{Refusal{Reason: access.NoRoute, Status: 200}, 404}, {Refusal{Reason: access.NoRoute, Status: 421}, 421}, {Refusal{Reason: access.NoRoute, Status: -1}, 404},
	} {
		page, program := httptest.NewRecorder(), httptest.NewRecorder()
		Refuse(page, false, c.rf)
		Problem(program, c.rf)
		if page.Code != c.want || program.Code != c.want {
			t.Errorf("%+v: %d, %d, want %d", c.rf, page.Code, program.Code, c.want)
		}
	}
}

func TestAges(t *testing.T) {
	for _, c := range []struct {
		then, now time.Time
		want      string
	}{
		{time.Time{}, noon, ""},
		{noon.Add(-10 * time.Second), noon, "just now (2026-11-23 11:59 UTC)"},
		{noon.Add(-time.Minute), noon, "1 minute ago (2026-11-23 11:59 UTC)"},
		{noon.Add(-26 * time.Hour), noon, "26 hours ago (2026-11-22 10:00 UTC)"},
		{noon.Add(-30 * 24 * time.Hour), noon, "30 days ago (2026-10-24)"},
		{noon, time.Time{}, "2026-11-23 12:00 UTC"},
		{noon.Add(time.Hour), noon, "2026-11-23 13:00 UTC"},
	} {
		if got := since(c.then, c.now); got != c.want {
			t.Errorf("%v: %q, want %q", c.then, got, c.want)
		}
	}
}

func parsePage(t *testing.T, name string, rec *httptest.ResponseRecorder) *html.Node {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(rec.Body.String()))
	if err != nil {
		t.Fatal(name, err)
	}
	return doc
}

func each(n *html.Node, f func(*html.Node)) {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode {
			f(d)
		}
	}
}

func find(n *html.Node, tag string) (out []*html.Node) {
	each(n, func(d *html.Node) {
		if d.Data == tag {
			out = append(out, d)
		}
	})
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func hrefs(n *html.Node) (out []string) {
	each(n, func(d *html.Node) {
		for _, a := range d.Attr {
			if a.Key == "href" || a.Key == "action" {
				out = append(out, a.Val)
			}
		}
	})
	return out
}

// text returns what is read, with blanks collapsed, without the style sheet.
func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode && d.Parent.Data != "style" {
			b.WriteString(d.Data)
			if d.Parent.Data != "span" {
				b.WriteByte(' ')
			}
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
