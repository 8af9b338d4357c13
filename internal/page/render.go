package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io"
	"net/http"
	"strconv"

	"github.com/doorward/doorward/internal/access"
)

//go:embed templates
var templates embed.FS

// style is the one style sheet, part of every page. The content security policy
// names its hash, so no other style can be injected.
var style = func() template.CSS {
	text, err := templates.ReadFile("templates/style.css")
	if err != nil {
		panic(err) // embedded: only a broken build can get here
	}
	return template.CSS(text)
}()

var (
	refusalPage   = parse("refusal.html")
	chooserPage   = parse("chooser.html")
	signedOutPage = parse("signedout.html")
	confirmPage   = parse("confirm.html")
	sendAgainPage = parse("sendagain.html")
	portalPage    = parse("portal.html")
)

func parse(name string) *template.Template {
	return template.Must(template.ParseFS(templates, "templates/base.html", "templates/"+name))
}

// The policies differ in one point. Chromium applies form-action to the whole
// redirect chain that follows a form, so a page whose form ends at an identity
// provider (logging out, choosing a login) must let forms lead anywhere on the
// web; a page without a form lets them lead nowhere.
var (
	policyWithoutForm = contentPolicy("'none'")
	policyWithForm    = contentPolicy("'self' https: http:")
)

func contentPolicy(forms string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action " + forms + "; frame-ancestors 'none'; base-uri 'none'"
}

// Headers sets the headers of a page that holds no form: nothing may be loaded,
// framed, cached, sniffed or referred to.
func Headers(h http.Header) {
	h.Set("Content-Security-Policy", policyWithoutForm)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
	dropContentHeaders(h)
}

// formHeaders are Headers for a page with a form. The referrer policy must not
// be no-referrer there: browsers would send "Origin: null" with the form, and
// the protection against forged requests would refuse our own.
func formHeaders(h http.Header) {
	Headers(h)
	h.Set("Content-Security-Policy", policyWithForm)
	h.Set("Referrer-Policy", "same-origin")
}

// dropContentHeaders removes what a handler may have said about another body
// before it failed.
func dropContentHeaders(h http.Header) {
	for _, name := range []string{"Content-Encoding", "Content-Range", "Content-Disposition", "Etag", "Last-Modified", "Trailer"} {
		h.Del(name)
	}
}

// layout is what base.html needs; every page's view embeds it.
type layout struct {
	Title string
	App   string
	Style template.CSS
}

func newLayout(title, app string) layout {
	return layout{Title: title, App: plain(app, maxLine), Style: style}
}

// write renders a page. An error can only be a mistake in a template, which
// tests exclude; visitors would still get an answer.
func write(w http.ResponseWriter, head bool, status int, page *template.Template, view any) {
	var body bytes.Buffer
	if err := page.ExecuteTemplate(&body, "base.html", view); err != nil {
		body.Reset()
		status = http.StatusInternalServerError
		io.WriteString(&body, access.InternalError.Info().Title)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	send(w, head, status, body.Bytes())
}

func send(w http.ResponseWriter, head bool, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if !head {
		w.Write(body) // the visitor may be gone; there is nobody left to tell
	}
}
