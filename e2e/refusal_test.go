package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/doorward/doorward/internal/access"
	pages "github.com/doorward/doorward/internal/page"
)

// refusalOf is a refusal for a device reason, as policy and door make it.
func refusalOf(reason access.Reason, now time.Time) pages.Refusal {
	need := access.Need{Reason: reason, Profile: "trusted", Fix: "https://it.example.com/" + string(reason)}
	if reason.CuredByInventory() && reason != access.DeviceUnknown {
		need.Source, need.Since, need.Read = "intune", now.Add(-3*time.Hour), now.Add(-4*time.Minute)
	}
	switch reason {
	case access.DeviceNotCompliant:
		need.Began = now.Add(-26 * time.Hour)
		need.Details = []string{"Firewall is turned off", "The screen locks only after more than 15 minutes"}
	case access.DeviceAtRisk:
		need.Details = []string{"Malware was found and is not removed yet"}
	case access.DeviceOSTooOld:
		need.Want, need.Got = "15.5", "14.2.1"
	case access.DeviceFactMissing:
		need.Want, need.Got = "disk_encrypted", "unknown"
	case access.DeviceFactsTooOld:
		need.Since, need.Want, need.Got, need.Began = now.Add(-30*24*time.Hour), "24h", "30d ago", now.Add(-29*24*time.Hour)
	case access.DeviceSourceUnavailable:
		need.Began, need.Read = now.Add(-40*time.Minute), now.Add(-45*time.Minute)
	case access.DeviceSourceNotAccepted:
		need.Want, need.Got = "intune or jamf", "spreadsheet"
	}
	rf := pages.Refusal{
		Reason: reason, RequestID: "0d9a5c3e-7f21-4b8a-9c64-2f1e6b7a8d90", Time: now, App: "billing.example.com", User: "carol.with-a-long-name@example.com",
		Decision: &access.Decision{Outcome: access.Challenge, Reason: reason, Needs: []access.Need{need}},
	}
	if reason.CuredByInventory() {
		rf.Links = append(rf.Links, pages.Link{Text: "Check again", URL: access.RecheckPath + "?return=/", Primary: true, Post: true})
	} else {
		rf.Links = append(rf.Links, pages.Link{Text: "Try again", URL: "/", Primary: true})
	}
	rf.Links = append(rf.Links, pages.Link{Text: "Use another account", URL: access.LoginPath + "?switch=1"}, pages.Link{Text: "Log out", URL: access.LogoutPath, Post: true})
	return rf
}

// Every device reason has a page that a browser shows without an element that
// sticks out, too small to tap or unreadable: on a desk, in the dark and on a
// narrow phone.
func TestRefusalPagesOfDevices(t *testing.T) {
	tab := startBrowser(t)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		rf := refusalOf(access.Reason(name), now)
		if name == "several" {
			rf = refusalOf(access.DeviceNotCompliant, now)
			for _, more := range []access.Reason{access.DeviceNotEncrypted, access.DeviceOSTooOld, access.DeviceFactMissing} {
				rf.Decision.Needs = append(rf.Decision.Needs, refusalOf(more, now).Decision.Needs...)
			}
			rf.Notice = "Checked just now: this device still does not pass."
		}
		pages.Refuse(w, false, rf)
	}))
	t.Cleanup(server.Close)
	names := []string{"several"}
	for _, reason := range access.Reasons() {
		if reason.AboutDevice() {
			names = append(names, string(reason))
		}
	}
	slices.Sort(names)
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1000}, {"dark", "dark", 1000}, {"phone", "light", 320}} {
		do(t, tab, chromedp.EmulateViewport(look.width, 800), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			features := []map[string]string{{"name": "prefers-color-scheme", "value": look.scheme}}
			return target.Call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": features}, nil)
		}))
		for _, name := range names {
			reason := access.Reason(name)
			if name == "several" {
				reason = access.DeviceNotCompliant
			}
			do(t, tab, chromedp.Navigate(server.URL+"/"+name), waitText(reason.Info().Title))
			shoot(t, tab, "refusal-"+name+"-"+look.name)
			if wrong := get(t, tab, chromedp.Evaluate[string](lookAtPage)); wrong != "" {
				t.Errorf("%s, %s: %s", name, look.name, wrong)
			}
			buttons := get(t, tab, chromedp.Evaluate[string](`[...document.querySelectorAll("button")].map(b => b.textContent).join(", ")`))
			if strings.Contains(buttons, "Check again") != reason.CuredByInventory() {
				t.Errorf("%s: the buttons are %s", name, buttons)
			}
			if links := get(t, tab, chromedp.Evaluate[string](`[...document.links].map(a => a.href).join(" ")`)); !strings.Contains(links, "https://it.example.com/") {
				t.Errorf("%s: no way to cure it among %s", name, links)
			}
		}
	}
}

// lookAtPage returns what is wrong with the look of a page: what sticks out to
// the side, what is too small to tap, and text whose contrast with what lies
// behind it is below 4.5 (WCAG 2.2, 1.4.3).
const lookAtPage = `(() => {
  const wrong = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) wrong.push("it is wider than the window");
  for (const e of document.querySelectorAll("a.button, button")) {
    const box = e.getBoundingClientRect();
    if (box.height < 44 || box.width < 44) wrong.push(e.textContent + " is small: " + box.width + " by " + box.height);
  }
  const parts = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) || e.closest(".hidden, svg, style")) continue;
    const a = light(parts(getComputedStyle(e).color).slice(0, 3)), b = light(behind(e));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong.push(e.textContent.trim().slice(0, 40) + " has a contrast of " + contrast.toFixed(2));
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let n; (n = texts.nextNode());) {
    for (const word of n.textContent.matchAll(/[a-z]{2,12}/gi)) {
      range.setStart(n, word.index);
      range.setEnd(n, word.index + word[0].length);
      if (range.getClientRects().length > 1 && !n.parentElement.closest("code, style")) wrong.push(word[0] + " is cut in two");
    }
  }
  return wrong.join("; ");
})()`
