package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// startBrowser runs Debian's Chromium. A context made from it is a tab.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append([]chromedp.ExecAllocatorOption{},
		chromedp.ExecPath(part(t, "chromium")), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true), chromedp.WindowSize(1000, 800),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	limited, cancel := context.WithTimeout(browser, 2*patience)
	t.Cleanup(cancel)
	if err := chromedp.Do(limited); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	return limited
}

// step is something a person does in a tab.
type step = chromedp.Action[chromedp.Void]

// do takes steps in a tab and shows what the tab saw if one fails.
func do(t *testing.T, tab context.Context, steps ...step) {
	t.Helper()
	get(t, tab, chromedp.Steps(steps...))
}

// get is do for an action with a result.
func get[T any](t *testing.T, tab context.Context, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		look, cancel := context.WithTimeout(tab, 5*time.Second)
		defer cancel()
		url, _ := chromedp.Run(look, chromedp.Location())
		text, _ := chromedp.Run(look, chromedp.Text("body"))
		t.Fatalf("%v\nat %s:\n%s", err, url, text)
	}
	return result
}

// waitField waits for a form with a field.
func waitField(name string) step {
	return waitFor(fmt.Sprintf(`document.readyState == "complete" && document.querySelector("input[name=%s]") != null`, name))
}

// loginForm fills in the provider's form.
func loginForm(name string) step {
	return chromedp.Steps(
		waitField("username"),
		chromedp.SetValue(`input[name=username]`, name),
		chromedp.SetValue(`input[name=password]`, "demo"),
		chromedp.Submit(`input[name=password]`),
	)
}

// waitText waits until the page says something. It asks again and again, since
// the page it asks may be gone by the time it answers, and since browsers draw
// no frames for tabs in the background.
func waitText(text string) step {
	return waitFor(fmt.Sprintf(`document.readyState == "complete" && document.body.innerText.includes(%q)`, text))
}

// waitFor waits until a JavaScript expression is true.
func waitFor(expression string) step {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if holds, err := chromedp.Evaluate[bool](expression)(ctx, tab); err == nil && holds {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for %s: %w", expression, ctx.Err())
			case <-tick.C:
			}
		}
	})
}

// shoot keeps a screenshot where DOORWARD_SCREENSHOTS names a folder.
func shoot(t *testing.T, tab context.Context, name string) {
	t.Helper()
	dir := os.Getenv("DOORWARD_SCREENSHOTS")
	if dir == "" {
		return
	}
	png := get(t, tab, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A day in the browser: log in, reach the application, be refused with a page
// that helps, log out.
func TestBrowserStory(t *testing.T) {
	tab := startBrowser(t)
	d := startDemo(t, t.TempDir())

	do(t, tab, chromedp.Navigate(d.url("wiki", "/")), waitField("username"))
	shoot(t, tab, "provider-login")
	do(t, tab, loginForm("alice"), waitText("How we work"))
	shoot(t, tab, "wiki")
	do(t, tab, chromedp.Navigate(d.url("billing", "/")), waitField("otp"))
	shoot(t, tab, "second-factor")
	do(t, tab, chromedp.Submit(`input[name=otp]`), waitText("Invoice 1001"))
	cookies := get(t, tab, chromedp.Evaluate[string](`document.cookie`))
	if strings.Contains(cookies, "doorward") {
		t.Errorf("a script can read the session cookie: %s", cookies)
	}
	do(t, tab, chromedp.Navigate(d.url("wiki", "/.doorward/logout")), waitText("logged out"))
	shoot(t, tab, "logged-out")

	do(t, tab, chromedp.Navigate(d.url("billing", "/")), loginForm("carol"), waitText("FileVault is turned off"))
	shoot(t, tab, "carol-on-billing")
	do(t, tab, chromedp.Click(`//a[contains(., "another account")]`), loginForm("bob"), waitText("You do not have access"))
	shoot(t, tab, "bob-on-billing")
	do(t, tab, chromedp.Navigate(d.url("wiki", "/")), waitText("A managed device is needed"))
	shoot(t, tab, "bob-on-wiki")
}

// Several tabs, opened before the login: each ends where it wanted to go.
func TestBrowserTabs(t *testing.T) {
	first := startBrowser(t)
	d := startDemo(t, t.TempDir())
	paths := []string{"/one", "/two", "/three"}
	tabs := []context.Context{first}
	for range paths[1:] {
		tab, cancel := chromedp.NewContext(first)
		t.Cleanup(cancel)
		if err := chromedp.Do(tab); err != nil { // the tab lives as long as this context
			t.Fatal(err)
		}
		tabs = append(tabs, tab)
	}
	for i, path := range paths {
		do(t, tabs[i], chromedp.Navigate(d.url("echo", path)), waitField("username"))
	}
	// The last tab logs in first: a login in between must not spoil the others.
	for i := len(paths) - 1; i >= 0; i-- {
		do(t, tabs[i], loginForm("alice"), waitText(`"url": "`+paths[i]+`"`))
	}
}

// A script on a page gets an answer it can read, not a redirect to a login.
func TestBrowserFetchIsNotRedirected(t *testing.T) {
	tab := startBrowser(t)
	d := startDemo(t, t.TempDir())
	do(t, tab, chromedp.Navigate(d.url("echo", "/")), loginForm("alice"), waitText(`"url": "/"`))
	get(t, tab, chromedp.Evaluate[bool](`fetch("/.doorward/logout", {method: "POST", redirect: "manual"}).then(() => true)`, chromedp.EvalAwaitPromise))
	answer := get(t, tab, chromedp.Evaluate[struct {
		Status     int    `json:"status"`
		Redirected bool   `json:"redirected"`
		Reason     string `json:"reason"`
	}](`fetch("/api").then(async r => ({status: r.status, redirected: r.redirected, reason: (await r.json()).reason}))`, chromedp.EvalAwaitPromise))
	if answer.Status != 401 || answer.Redirected || answer.Reason != "login_required" {
		t.Errorf("%+v", answer)
	}
}
