package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func handler(failing map[string]error) http.Handler {
	return New(Options{
		Config:  Config{Hosts: []string{"Doorward.ops.internal"}},
		Checks:  func() map[string]error { return failing },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "doorward_up 1\n") }),
		Version: "v1.2.3",
		Status:  func() any { return map[string]any{"config": "c1", "evil": "</pre><script>alert(1)</script>"} },
	})
}

func get(h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = "127.0.0.1:9901"
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func TestHealthIsNotReadiness(t *testing.T) {
	h := handler(map[string]error{"store": nil, "provider corp": errors.New("no keys yet"), "audit": errors.New("disk full")})
	if rec := get(h, "/healthz"); rec.Code != 200 {
		t.Error("a process that is not ready is still alive:", rec.Code)
	}
	rec := get(h, "/readyz")
	var answer struct{ Failing []failure }
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 503 || len(answer.Failing) != 2 || answer.Failing[0] != (failure{"audit", "disk full"}) || answer.Failing[1] != (failure{"provider corp", "no keys yet"}) {
		t.Error(rec.Code, rec.Body)
	}
	if rec := get(handler(nil), "/readyz"); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"ready"`) {
		t.Error(rec.Code, rec.Body)
	}
}

func TestMetricsAndStatus(t *testing.T) {
	h := handler(nil)
	if rec := get(h, "/metrics"); rec.Code != 200 || rec.Body.String() != "doorward_up 1\n" {
		t.Error(rec.Code, rec.Body)
	}
	rec := get(h, "/api/v1/status")
	var status struct {
		Version string
		Ready   bool
		Details map[string]string
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &status); err != nil || status.Version != "v1.2.3" || !status.Ready || status.Details["config"] != "c1" {
		t.Error(err, rec.Body)
	}
	for _, path := range []string{"/nothing", "/api/v2/sessions", "/healthz/x"} {
		if rec := get(h, path); rec.Code != 404 {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if rec := get(New(Options{}), "/metrics"); rec.Code != 404 {
		t.Error("metrics without a handler:", rec.Code)
	}
	if rec := get(New(Options{Status: func() any { return func() {} }}), "/api/v1/status"); rec.Code != 500 {
		t.Error("status that cannot be encoded:", rec.Code)
	}
}

// DNS rebinding: a page of evil.example makes its own name lead to 127.0.0.1
// and reads the answer as same-origin. Only the Host header tells.
func TestForeignNamesAreRefused(t *testing.T) {
	h := handler(nil)
	for _, host := range []string{"127.0.0.1:9901", "127.0.0.1", "[::1]:9901", "[::1]", "10.1.2.3:9901", "localhost:9901", "LOCALHOST.", "admin.localhost:9901", "doorward.ops.internal", "DOORWARD.ops.internal:9901"} {
		if rec := get(h, "/readyz", func(r *http.Request) { r.Host = host }); rec.Code != 200 {
			t.Errorf("%s: %d", host, rec.Code)
		}
	}
	for _, host := range []string{"", "evil.example", "evil.example:9901", "127.0.0.1.evil.example:9901", "localhost.evil.example", "notlocalhost", "127.0.0.1:9901:1", "127.0.0.1:x", "127.1", "doorward.ops.internal.evil.example", "[localhost]", "::1]x"} {
		for _, path := range []string{"/readyz", "/metrics", "/api/v1/status", "/"} {
			if rec := get(h, path, func(r *http.Request) { r.Host = host }); rec.Code != http.StatusMisdirectedRequest || strings.Contains(rec.Body.String(), "v1.2.3") {
				t.Errorf("%q %s: %d", host, path, rec.Code)
			}
		}
	}
	named := New(Options{Config: Config{Listen: "ops.example:9901"}})
	if rec := get(named, "/healthz", func(r *http.Request) { r.Host = "ops.example:9901" }); rec.Code != 200 {
		t.Error("the name it listens on is refused")
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	h := handler(nil)
	with := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"fetch of another site":  {with("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"), 403},
		"image of another port":  {with("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"), 403},
		"frame of another site":  {with("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 403},
		"foreign origin":         {with("Origin", "https://evil.example"), 403},
		"hidden origin":          {with("Origin", "null"), 403},
		"link from another site": {with("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200},
		"typed address":          {with("Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"), 200},
		"own page":               {with("Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:9901"), 200},
	} {
		if rec := get(h, "/api/v1/status", c.change); rec.Code != c.want {
			t.Errorf("%s: %d, want %d", name, rec.Code, c.want)
		} else if rec.Header().Get("Access-Control-Allow-Origin") != "" || rec.Header().Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %v", name, rec.Header())
		}
	}
}

func TestNothingCanBeChanged(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"} {
		if rec := get(handler(nil), "/api/v1/status", func(r *http.Request) { r.Method = method }); rec.Code != 405 || rec.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, rec.Code)
		}
	}
	if rec := get(handler(nil), "/healthz", func(r *http.Request) { r.Method = "HEAD" }); rec.Code != 200 {
		t.Error("HEAD:", rec.Code)
	}
}

func TestConfigFaults(t *testing.T) {
	for path, cfg := range map[string]Config{
		"admin.listen":      {Listen: "9901"},
		"admin.listen ":     {Listen: "127.0.0.1:http"},
		"admin.hosts[1]":    {Hosts: []string{"ok.internal", "https://x"}},
		"admin.hosts[0]":    {Hosts: []string{"*.internal"}},
		"admin.view_groups": {ViewGroups: []string{"support"}},
	} {
		f := access.NewFaults("admin")
		cfg.Validate(f)
		if list := f.List(); len(list) != 1 || list[0].Path != strings.TrimSpace(path) || list[0].Cure == "" {
			t.Errorf("%s: %+v", path, list)
		}
	}
	f := access.NewFaults("admin")
	for _, good := range []Config{{}, {Listen: ":9901"}, {Listen: "[::1]:0", Hosts: []string{"a.b"}}} {
		good.Validate(f)
	}
	if len(f.List()) != 0 || (&Config{}).Address() != "127.0.0.1:9901" {
		t.Error(f.List())
	}
	for listen, want := range map[string]string{"": "http://127.0.0.1:9901", ":9901": "http://127.0.0.1:9901", "[::]:1": "http://[::1]:1", "10.0.0.7:9901": "http://10.0.0.7:9901"} {
		if got := (&Config{Listen: listen}).URL(); got != want {
			t.Errorf("%q: %s", listen, got)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, host := range []string{"127.0.0.1:9901", "[::1]:1", "localhost", "evil.example", "a:b:c", "", "[::1%25eth0]"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if (&Config{}).answersTo(host + ".evil.example") {
			t.Errorf("%q answers to a foreign name", host)
		}
	})
}
