package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// axeScript returns the rules of axe-core, an independent judge of whether pages
// can be used by people who see or move otherwise.
func axeScript(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("axe", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		if os.Getenv("DOORWARD_REQUIRE_PARTS") != "" {
			t.Fatalf("axe-core is not installed: %v", err)
		}
		t.Skip("axe-core is not installed; `npm ci` in e2e/axe installs it")
	}
	return string(text)
}

// inspect fails the story where the page in the tab is not as a page should be:
// by the rules of axe-core, and by ours, which also look at the size of what is
// to be hit and at words that are cut in two.
func inspect(t *testing.T, tab context.Context, axe, where string) {
	t.Helper()
	for _, script := range []string{lookAtPage, lookAtNames, lookAtFocus} {
		if wrong := get(t, tab, chromedp.Evaluate[string](script)); wrong != "" {
			t.Errorf("%s: %s", where, wrong)
		}
	}
	get(t, tab, chromedp.Evaluate[bool](axe+"\n;true"))
	if wrong := get(t, tab, chromedp.Evaluate[string](runAxe, chromedp.EvalAwaitPromise)); wrong != "" {
		t.Errorf("%s: %s", where, wrong)
	}
}

// runAxe returns what axe-core finds, best practices included.
const runAxe = `axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(v =>
  v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " (" + (n.any[0] || n.all[0] || n.none[0] || {}).message + ")").join(" | ")).join("; "))`

// lookAtFocus goes to everything that the Tab key reaches and returns what does
// not show that it is there.
const lookAtFocus = `(() => {
  const wrong = [];
  for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")) {
    if (e.closest("details:not([open])") && e.tagName != "SUMMARY") continue;
    e.focus({focusVisible: true});
    const s = getComputedStyle(e);
    if (document.activeElement != e) wrong.push(e.outerHTML.slice(0, 80) + " cannot be reached");
    else if (s.outlineStyle == "none" || parseFloat(s.outlineWidth) < 2) wrong.push(e.outerHTML.slice(0, 80) + " does not show that it is reached");
  }
  document.activeElement.blur();
  window.scrollTo(0, 0);
  return wrong.join("; ");
})()`
