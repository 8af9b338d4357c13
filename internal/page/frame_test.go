package page

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// The answer in a provider's frame can be framed by the provider only, and shows
// and loads nothing.
func TestLoggedOutFrame(t *testing.T) {
	for _, c := range []struct {
		origins []string
		want    string
	}{
		{[]string{"https://login.example"}, "frame-ancestors https://login.example;"},
		{[]string{"https://login.example", "https://out.example"}, "frame-ancestors https://login.example https://out.example;"},
		{nil, "frame-ancestors ;"}, // nobody, as with 'none'
	} {
		rec := httptest.NewRecorder()
		LoggedOutFrame(rec, c.origins...)
		h := rec.Header()
		policy := h.Get("Content-Security-Policy")
		if rec.Code != 200 || !strings.Contains(policy, c.want) || !strings.HasPrefix(policy, "default-src 'none';") || h.Get("X-Frame-Options") != "" {
			t.Errorf("%d %v", rec.Code, h)
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%v", h)
		}
		if doc := parsePage(t, "frame", rec); strings.TrimSpace(text(doc)) != "Logged out" {
			t.Errorf("it says %q", text(doc))
		}
	}
}
