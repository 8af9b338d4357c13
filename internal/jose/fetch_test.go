package jose

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestRedirectsStayOnTheHost(t *testing.T) {
	get := func(address string) *http.Request { return httptest.NewRequest(http.MethodGet, address, nil) }
	post := httptest.NewRequest(http.MethodPost, "https://corp.test/token", nil)
	first := get("https://corp.test/a")
	for name, c := range map[string]struct {
		to  *http.Request
		via []*http.Request
		ok  bool
	}{
		"same host":    {get("https://corp.test/b"), []*http.Request{first}, true},
		"another host": {get("https://evil.example/b"), []*http.Request{first}, false},
		"without TLS":  {get("http://corp.test/b"), []*http.Request{first}, false},
		"another port": {get("https://corp.test:8443/b"), []*http.Request{first}, false},
		"a post":       {get("https://corp.test/b"), []*http.Request{post}, false},
		"for ever":     {get("https://corp.test/b"), []*http.Request{first, first, first, first}, false},
	} {
		if err := StayOnHost(c.to, c.via); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
