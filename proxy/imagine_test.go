package proxy

import (
	"net/url"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// What is explained about an address has to hold for a request to it.
func TestImaginedRequestsAreReadAsLiveOnes(t *testing.T) {
	echo := newEcho(t)
	loose := routeTo("http://app.example/loose", echo)
	loose.ID, loose.AmbiguousPaths = "loose", []string{"semicolon", "encoded_slash"}
	w := newWorld(t, []access.Route{routeTo("http://app.example", echo), loose})
	for _, target := range []string{
		"http://app.example", "http://APP.example:80/%61?x=1&code=s", "http://app.example/loose/a;b", "http://app.example/a;b", "http://app.example/loose/a%2fb",
		"http://app.example/a%2e%2e/%2e%2e/b", "http://app.example/%C3%A4", "http://app.example/?a;b", "http://other.example/",
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		imagined, err := Imagine(w.snapshot.Routes, "GET", u)
		w.raw("GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\n\r\n")
		live := w.rec.event(t).Request
		if err != nil {
			if access.ReasonOf(err) != live.Fault {
				t.Errorf("%s: %v, live %s", target, err, live.Fault)
			}
			continue
		}
		if live.Fault != "" || imagined.Path != live.Path || imagined.Query != live.Query || imagined.Host != live.Host || imagined.Route != live.Route {
			t.Errorf("%s: imagined %+v, live %+v", target, imagined, live)
		}
	}
}
