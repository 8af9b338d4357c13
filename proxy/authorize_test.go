package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// questionAbout is what a door makes of a front end's question about the shop.
func questionAbout(method, target string, headers ...string) *Question {
	r := (&http.Request{Method: method, RequestURI: target, URL: &url.URL{Path: "/"}, Host: "shop.example", RemoteAddr: "127.0.0.1:1234",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
		Header: http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.7"}}}).WithContext(context.Background())
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return &Question{Request: r, Door: access.ExtAuthz}
}

// What a front end has to do to the request is what Doorward would do itself:
// nothing that only Doorward may say stays as the visitor said it.
func TestAuthorizeHandsOver(t *testing.T) {
	w, _ := askingWorld(t)
	v := w.door.Authorize(questionAbout("GET", "/a?b=c", "Cookie", "theme=dark", "Cookie", asAlice, "X-Forwarded-User", "root",
		"X_Forwarded_User", "root", "x-nothing", "root", "X.Dept", "root", "Remote-User", "root", "Doorward-Assertion", "forged", "Accept", "text/html"))
	e := w.rec.event(t)
	if !v.Allowed || e.Decision.Outcome != access.Allow || e.Request.Door != access.ExtAuthz || e.Request.Network.IP != netip.MustParseAddr("203.0.113.7") {
		t.Fatalf("%+v", v)
	}
	for name, want := range map[string]string{"X-Forwarded-User": "corp:alice", "X-Dept": "R&D", "Cookie": "theme=dark", "X-Request-Id": e.Request.ID, "X-Forwarded-Host": "shop.example"} {
		if got := v.HandOn[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a := v.HandOn.Get(AssertionHeader); a == "" || a == "forged" {
		t.Errorf("assertion %q", a)
	}
	for _, name := range []string{"X_forwarded_user", "X.dept", "Remote-User", "X-Nothing", "Authorization"} {
		if !slices.Contains(v.Remove, name) {
			t.Errorf("%s is not removed: %v", name, v.Remove)
		}
	}
	for name := range v.HandOn {
		if slices.Contains(v.Remove, name) || name == "Accept" {
			t.Errorf("%s is set and removed, or set for nothing", name)
		}
	}
}

// Who is not allowed gets the same answer as anywhere, and the front end nothing
// to hand on.
func TestAuthorizeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		policy policy
		ask    *Question
		status int
		reason access.Reason
	}{
		"a person is sent to log in":  {loginFirst, questionAbout("GET", "/", "Accept", "text/html"), 302, access.LoginRequired},
		"a program is told":           {loginFirst, questionAbout("GET", "/", "Accept", "application/json"), 401, access.LoginRequired},
		"a gRPC call, too":            {loginFirst, questionAbout("POST", "/", "Content-Type", "application/grpc"), 401, access.LoginRequired},
		"a denial":                    {deny(access.NotAllowed), questionAbout("GET", "/"), 403, access.NotAllowed},
		"an ambiguous path":           {allowAll, questionAbout("GET", "//a"), 400, access.AmbiguousPath},
		"a fault":                     {allowAll, questionAbout("GET", "/", "Cookie", "doorward=panic"), 500, access.InternalError},
		"an upgrade that is not open": {allowAll, questionAbout("GET", "/", "Connection", "upgrade", "Upgrade", "h2c"), 403, access.Allowed},
		"our own addresses":           {allowAll, questionAbout("GET", access.LoginPath), 400, access.BadRequest},
	} {
		w, _ := askingWorld(t, withPolicy(c.policy))
		c.ask.Request.ProtoMajor = 2 // nor does that make a gRPC refusal a 200
		v := w.door.Authorize(c.ask)
		w.rec.event(t)
		if v.Allowed || v.Status != c.status && !(c.status == 403 && v.Status >= 400) || v.Decision.Reason != c.reason || v.HandOn != nil {
			t.Errorf("%s: %d, %+v, %v", name, v.Status, v.Decision, v.HandOn)
		}
		if v.Status != 302 && (len(v.Body) == 0 || v.Header.Get("Content-Type") == "") {
			t.Errorf("%s: there is nothing to read", name)
		}
	}
	if v := Refused(errors.New("no")); v.Allowed || v.Status != 403 || v.Decision.Outcome != access.Deny {
		t.Errorf("%+v", v)
	}
}

// A refusal is never a 2xx, not even to a front end that asks about a gRPC call
// over HTTP/2, where gRPC's own refusals are.
func TestForwardAuthRefusesGRPCByStatus(t *testing.T) {
	w, _ := askingWorld(t, withPolicy(deny(access.NotAllowed)))
	for _, form := range []answering{wholly, asPage, asVerdict} {
		q := questionAbout("POST", "/", "Content-Type", "application/grpc")
		q.Request.ProtoMajor = 2
		answer := &answerBook{header: http.Header{}}
		p := w.door.begin(answer, q.Request)
		p.answering = form
		p.answer()
		p.finish()
		w.rec.event(t)
		if answer.status != 403 {
			t.Errorf("%d: %d", form, answer.status)
		}
	}
}

// A front end may say which route it means. That narrows, and never widens.
func TestQuestionOnBehalfOfARoute(t *testing.T) {
	w, _ := askingWorld(t, withPolicy(allowAll))
	for route, want := range map[string]bool{"": true, "shop": true, "other": false, "Shop": false} {
		q := questionAbout("GET", "/")
		q.Route = route
		v := w.door.Authorize(q)
		if e := w.rec.event(t); v.Allowed != want || want == (e.Request.Fault != "") {
			t.Errorf("%q: %+v", route, v)
		}
	}
}

// The certificate that a front end tells of is the visitor's; one that cannot be
// read is worse than none.
func TestQuestionWithCertificate(t *testing.T) {
	by := &shown{}
	w, _ := askingWorld(t, withPolicy(func(r *access.Request) access.Decision {
		if r.Device.Problem != "" {
			return access.Decision{Reason: r.Device.Problem}
		}
		return allowAll(r)
	}), func(w *world) { w.snapshot.Identify = by })
	for cert, want := range map[string][]string{
		armour(selfSigned(t, "laptop")): {"laptop"},
		"":                              nil,
		"-----BEGIN%20CERTIFICATE-----%0Abroken%0A-----END%20CERTIFICATE-----%0A": nil,
		"%zz": nil,
	} {
		q := questionAbout("GET", "/")
		q.Certificate = cert
		v := w.door.Authorize(q)
		w.rec.event(t)
		if !slices.Equal(by.names, want) || v.Allowed != (cert == "" || want != nil) || !v.Allowed && v.Decision.Reason != access.DeviceCertInvalid {
			t.Errorf("%q: %v, %+v", cert, by.names, v.Decision)
		}
	}
}

// Envoy over HTTP repeats the request behind a prefix. Who could say something
// about it in headers says nothing.
func TestForwardAuthInPlace(t *testing.T) {
	w, _ := askingWorld(t)
	side := httptest.NewServer(w.door.ForwardAuth())
	t.Cleanup(side.Close)
	ask := func(method, target string, headers ...string) *http.Response {
		req, err := http.NewRequest(method, side.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque, req.Host = target, "shop.example"
		for i := 0; i < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	known := []string{"X-Forwarded-Proto", "https", "X-Forwarded-For", "203.0.113.7", "Cookie", asAlice}
	res := ask("DELETE", access.AuthInPlacePath+"/a?b=c", append(known, "X-Forwarded-Uri", "/public", "X-Forwarded-Host", "evil.example", "X-Forwarded-Method", "GET",
		"Remote-User", "root", "X_Forwarded_User", "root", "X-Nothing", "root")...)
	e := w.rec.event(t)
	if res.StatusCode != 200 || e.Request.Method != "DELETE" || e.Request.Path != "/a" || e.Request.Query != "b=c" || e.Request.Host != "shop.example" || e.Request.Network.IP.String() != "203.0.113.7" {
		t.Fatalf("%d %+v", res.StatusCode, e.Request)
	}
	remove := strings.Split(res.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ",")
	for _, name := range []string{"remote-user", "x_forwarded_user", "x-nothing", "x-forwarded-uri", "cookie"} {
		if !slices.Contains(remove, name) {
			t.Errorf("%s may stay: %v", name, remove)
		}
	}
	if res.Header.Get("X-Forwarded-User") != "corp:alice" || slices.Contains(remove, "x-forwarded-user") {
		t.Errorf("%v", res.Header)
	}
	if res := ask("GET", access.AuthInPlacePath+"/", "X-Forwarded-Proto", "https", "X-Forwarded-For", "203.0.113.7", "Accept", "text/html"); res.StatusCode != 302 {
		t.Errorf("%d", res.StatusCode)
	}
	for name, c := range map[string][]string{
		"no scheme":   append([]string{"/"}, known[2:]...),
		"no client":   append([]string{"/"}, "X-Forwarded-Proto", "https", "Cookie", asAlice),
		"two schemes": append([]string{"/", "X-Forwarded-Proto", "http"}, known...),
		"two slashes": append([]string{"//a"}, known...),
		"our own":     append([]string{access.LoginPath}, known...),
		"no address":  append([]string{""}, known...),
		"a neighbour": append([]string{"ra"}, known...),
	} {
		if res := ask("GET", access.AuthInPlacePath+c[0], c[1:]...); res.StatusCode < 400 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}
