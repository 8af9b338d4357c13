package e2e

import (
	"bytes"
	"html"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// trips counts how often a visitor is sent to the provider.
type trips struct {
	http.RoundTripper
	n int
}

func (c *trips) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/authorize") {
		c.n++
	}
	return c.RoundTripper.RoundTrip(r)
}

// watched returns a visitor whose trips to the provider are counted.
func watched(t *testing.T) (*visitor, *trips) {
	v := newVisitor(t)
	count := &trips{RoundTripper: v.client.Transport}
	v.client.Transport = count
	return v, count
}

// post sends a form as a page of the same origin does.
func (v *visitor) post(target, contentType, body string, header ...string) page {
	v.t.Helper()
	h := v.header.Clone()
	h.Set("Content-Type", contentType)
	h.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return v.send(v.client, http.MethodPost, target, h, strings.NewReader(body))
}

var loginLink = regexp.MustCompile(`href="(/\.doorward/login\?[^"]*)"`)

// follow opens the login that a page offers.
func (v *visitor) follow(p page) page {
	v.t.Helper()
	found := loginLink.FindStringSubmatch(p.body)
	if found == nil {
		v.t.Fatalf("no login is offered at %s (%d):\n%s", p.url, p.status, p.body)
	}
	return v.open(p.url.Scheme + "://" + p.url.Host + html.UnescapeString(found[1]))
}

const urlencoded = "application/x-www-form-urlencoded"

// echoed is what the echo application saw.
type echoed struct {
	Method, URL, Body string
	Headers           http.Header
}

func TestStepUpOfAForm(t *testing.T) {
	d := startDemo(t, t.TempDir())
	text := strings.Replace(d.configuration(), "    websocket: true\n", `    websocket: true
    rules:
      - {methods: [POST], require: {login: {acr: [mfa]}}}
      - {paths: ["/never/**"], require: {login: {acr: [never]}}}
      - {paths: ["/key/**"], require: {login: {phishing_resistant: true}}}
`, 1)
	replace(t, d.configPath(), text)
	d.waitFor("configuration loaded", 1)
	form := "to=bob&amount=100&note=a%20%26%20b"

	t.Run("reading passes, sending steps up once and keeps what was sent", func(t *testing.T) {
		v, count := watched(t)
		v.login(d.url("echo", "/pay"), "alice").says(t, 200)
		count.n = 0
		asked := v.post(d.url("echo", "/pay?draft=1"), urlencoded, form)
		asked.says(t, 401, "A stronger login is needed", "kept for ten minutes")
		factor := v.follow(asked)
		if !strings.Contains(factor.body, `name="otp"`) {
			t.Fatalf("no second factor was asked for: %d %s", factor.status, factor.url)
		}
		again := v.confirm(factor)
		again.says(t, 200, "Send it again?", "/pay?draft=1", "alice@example.com")
		var got echoed
		v.submit(again, nil).json(t, &got)
		if got.Method != "POST" || got.URL != "/pay?draft=1" || got.Body != form || got.Headers.Get("Content-Type") != urlencoded {
			t.Errorf("the application got %+v", got)
		}
		if count.n != 1 {
			t.Errorf("%d trips to the provider, want 1", count.n)
		}
		v.submit(again, nil).says(t, 410, "not kept any more")
		v.post(d.url("echo", "/pay"), urlencoded, form).json(t, &got) // strong enough from now on
		if got.Body != form || count.n != 1 {
			t.Errorf("after the step-up: %+v, %d trips", got, count.n)
		}
	})
	t.Run("a stranger's upload survives the login", func(t *testing.T) {
		v, count := watched(t)
		var body bytes.Buffer
		parts := multipart.NewWriter(&body)
		file, _ := parts.CreateFormFile("file", "a.bin")
		file.Write(bytes.Repeat([]byte("upload;"), 1000))
		parts.Close()
		asked := v.post(d.url("echo", "/upload"), parts.FormDataContentType(), body.String())
		asked.says(t, 401, "Please log in", "kept for ten minutes")
		login := v.follow(asked)
		again := v.confirm(v.submit(login, map[string]string{"username": "alice", "password": "demo"}))
		// Who has just logged in with a password sends it, and steps up.
		if stepUp := v.submit(again, nil); stepUp.status == 401 {
			again = v.confirm(v.follow(stepUp))
			again.says(t, 200, "Send it again?")
			var got echoed
			v.submit(again, nil).json(t, &got)
			if got.Body != body.String() || got.Headers.Get("Content-Type") != parts.FormDataContentType() {
				t.Errorf("the upload was changed: %s, %d bytes", got.Headers.Get("Content-Type"), len(got.Body))
			}
		} else {
			t.Errorf("%d %s", stepUp.status, stepUp.body)
		}
		if count.n != 2 {
			t.Errorf("%d trips to the provider, want a login and a step-up", count.n)
		}
	})
	t.Run("what is not kept is said plainly", func(t *testing.T) {
		v := newVisitor(t)
		v.login(d.url("echo", "/"), "alice")
		for name, p := range map[string]page{
			"too large":      v.post(d.url("echo", "/pay"), urlencoded, "a="+strings.Repeat("x", 64<<10)),
			"another site's": v.post(d.url("echo", "/pay"), urlencoded, form, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"),
		} {
			if p.says(t, 401, "what you sent was not kept"); strings.Contains(p.text(t), "ten minutes") {
				t.Errorf("%s form was kept", name)
			}
		}
	})
	t.Run("a program is told what to ask for", func(t *testing.T) {
		v := newVisitor(t)
		v.login(d.url("echo", "/"), "alice")
		p := v.once("POST", d.url("echo", "/pay"), http.Header{"Content-Type": {urlencoded}, "Accept": {"*/*"}}, strings.NewReader(form))
		challenge := p.header.Get("WWW-Authenticate") // RFC 9470 §3
		if p.status != 401 || !strings.Contains(challenge, `error="insufficient_user_authentication"`) || !strings.Contains(challenge, `acr_values="mfa"`) ||
			p.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(p.body, "acr_insufficient") {
			t.Errorf("%d %s %s", p.status, challenge, p.body)
		}
		p = v.once("GET", d.url("echo", "/key/x"), nil, nil)
		if challenge := p.header.Get("WWW-Authenticate"); !strings.Contains(challenge, `acr_values="phr phrh"`) || !strings.Contains(p.body, "phishing_resistant_needed") {
			t.Errorf("%d %s %s", p.status, challenge, p.body)
		}
	})
	t.Run("who cannot step up is told so after one try", func(t *testing.T) {
		v, count := watched(t)
		v.login(d.url("echo", "/"), "dave")
		count.n = 0
		v.follow(v.post(d.url("echo", "/pay"), urlencoded, form)).says(t, 403, "The stronger login did not happen", "second factor")
		if count.n != 1 {
			t.Errorf("%d trips to the provider", count.n)
		}
		v.open(d.url("echo", "/")).says(t, 200) // what worked before still does
	})
	t.Run("a provider that cannot is asked once", func(t *testing.T) {
		for _, path := range []string{"/never/x", "/key/x"} {
			v, count := watched(t)
			v.login(d.url("echo", "/"), "alice")
			count.n = 0
			v.confirm(v.open(d.url("echo", path))).says(t, 403, "The stronger login did not happen")
			if count.n != 1 {
				t.Errorf("%s: %d trips to the provider", path, count.n)
			}
		}
	})
}
