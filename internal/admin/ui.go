package admin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

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

var contentPolicy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}()

// pageFiles are parsed once, each with the frame around it.
var pageFiles = func() map[string]*template.Template {
	base := template.Must(template.New("").Funcs(words).ParseFS(templates, "templates/base.html"))
	files := map[string]*template.Template{}
	for _, name := range []string{"login", "fault", "overview", "decisions", "decision", "sessions", "session", "devices", "device", "routes", "reports", "revocations", "config", "actions"} {
		files[name] = template.Must(template.Must(base.Clone()).ParseFS(templates, "templates/"+name+".html"))
	}
	return files
}()

// uiPage is one address of the pages. Each file that has some returns them from a
// method of api; pages joins them.
type uiPage struct {
	// pattern is one of http.ServeMux, with its method: "GET /sessions".
	pattern string
	// title is that of the page in the list of pages; empty for what is not in it.
	title string
	serve http.HandlerFunc
}

// pages is everything that people look at. What is not there has no page.
func (a *api) pages() (list []uiPage) {
	for _, some := range [][]uiPage{
		a.overviewPages(), a.decisionPages(), a.sessionPages(), a.devicePages(), a.routePages(),
		a.reportPages(), a.revocationPages(), a.configPages(), a.actionPages(),
	} {
		list = append(list, some...)
	}
	return list
}

// forPeople lets those in who came by the route or opened the pages with the
// token; everybody else is asked for the token. A form has to be one of ours.
func (a *api) forPeople(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := callerOf(r)
		if who == nil {
			if who = a.glassCaller(r); who == nil {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
				return
			}
			r = withCaller(r, who)
		}
		if r.Method == http.MethodPost {
			err := a.readForm(w, r)
			if err == nil && !a.formIsOurs(who, r.PostForm.Get("form")) {
				err = &Fault{http.StatusForbidden, "the form is not from these pages, or too old", "go back, load the page again and send it once more"}
			}
			if err != nil {
				a.refuse(w, r, err)
				return
			}
		}
		serve(w, r)
	})
}

// readForm reads a form, which only our own pages can have sent: the browser
// says where it comes from.
func (a *api) readForm(w http.ResponseWriter, r *http.Request) error {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site != "same-origin" && (site != "" || origin == "" || !ownOrigin(origin, r, callerOf(r))) {
		return &Fault{http.StatusForbidden, "the form is not from these pages", "load the page again and send it once more"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return &Fault{http.StatusUnsupportedMediaType, "this is no form", ""}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		return &Fault{http.StatusBadRequest, "the form cannot be read", ""}
	}
	return nil
}

// formLifetime is how long a page may lie before its form is sent.
const formLifetime = 4 * time.Hour

// formToken makes what a form has to bring back. It is good for one person, or
// for one session of the token, and for some time.
func (a *api) formToken(who *caller) string {
	if who == nil {
		return ""
	}
	until := strconv.FormatInt(a.Now().Add(formLifetime).Unix(), 36)
	return until + "." + a.formMAC(who, until)
}

func (a *api) formMAC(who *caller, until string) string {
	mac := hmac.New(sha256.New, a.FormKey)
	for _, part := range []string{until, who.User, who.glass, who.Origin} {
		mac.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		mac.Write([]byte(":" + part))
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (a *api) formIsOurs(who *caller, token string) bool {
	until, mac, ok := strings.Cut(token, ".")
	end, err := strconv.ParseInt(until, 36, 64)
	return ok && err == nil && hmac.Equal([]byte(mac), []byte(a.formMAC(who, until))) && a.Now().Unix() < end
}

// frame is what base.html shows around a page.
type frame struct {
	Title   string
	Style   template.CSS
	Nav     []navItem
	Who     *caller
	Proven  bool
	Form    string
	Notice  string
	Version string
	Now     time.Time
	Body    any
}

type navItem struct {
	Path, Title string
	Here        bool
}

// notices are what a page says after something was done.
var notices = map[string]string{
	"session": "The session has ended. Its open connections are closed.",
	"revoked": "It is revoked. Whatever was issued before is refused from now on.",
	"lifted":  "The revocation is lifted. What it ended does not come back.",
}

// render writes a page.
func (a *api) render(w http.ResponseWriter, r *http.Request, status int, file, title string, body any) {
	who := callerOf(r)
	f := frame{Title: title, Style: style, Who: who, Form: a.formToken(who), Version: a.Version, Now: a.Now().UTC(), Body: body}
	if who != nil {
		f.Proven = who.proven
		f.Notice = notices[r.URL.Query().Get("done")]
		for _, p := range a.pages() {
			path := strings.TrimSuffix(strings.TrimPrefix(p.pattern, "GET "), "{$}")
			if p.title != "" {
				f.Nav = append(f.Nav, navItem{path, p.title, path == r.URL.Path})
			}
		}
	}
	var text bytes.Buffer
	if err := pageFiles[file].ExecuteTemplate(&text, "base.html", f); err != nil {
		a.Log.Error("an admin page could not be written", "page", file, "error", err)
		http.Error(w, "The page could not be written; see the log.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(access.HideTokensIn(text.Bytes())) // whoever asked may be gone; there is nobody left to tell
}

// refuse writes a page about what went wrong.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	fault, ok := errors.AsType[*Fault](err)
	if !ok {
		fault = &Fault{Status: access.ReasonOf(err).Info().Status, Text: err.Error()}
		a.Log.Warn("an admin request failed", "error", err)
	}
	a.render(w, r, fault.Status, "fault", "That did not work", fault)
}

// submit serves a form: it does what that asks for and leads on to a page that
// says so.
func (a *api) submit(name, done, next string, do func(*http.Request, Deed) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("id", r.PostForm.Get("id"))
		if _, err := a.perform(r, name, Deed{Why: strings.TrimSpace(r.PostForm.Get("why"))}, do); err != nil {
			a.refuse(w, r, err)
			return
		}
		http.Redirect(w, r, next+"?done="+done, http.StatusSeeOther)
	}
}
