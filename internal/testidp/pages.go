package testidp

import (
	"bytes"
	_ "embed"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

//go:embed pages.html
var pagesSource string

func parsePages() *template.Template {
	return template.Must(template.New("pages").Parse(pagesSource))
}

type loginPage struct {
	Flow     string
	Username string // to begin with
	Current  string // who is logged in, where the client asked to choose
	Error    string
}

type factorPage struct {
	Flow, Username, Code, Error string
}

type logoutPage struct {
	Username, Hint, ClientID, URI, State string
}

// frame is what all pages share.
type frame struct {
	Title, Name, Nonce string
	Base               string // where forms are posted to
	Page               any
}

// Titled returns the frame with a title, for the templates.
func (f frame) Titled(title string) frame {
	f.Title = title
	return f
}

// hint is one line of the list of demo users.
type hint struct {
	Username, Password, About string
}

func (p *Provider) hints() []hint {
	if !p.options.Hints {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []hint
	for _, name := range slices.Sorted(maps.Keys(p.users)) {
		u := p.users[name]
		about := strings.Join(u.Groups, ", ")
		if u.MFA {
			about += " · MFA"
		}
		list = append(list, hint{u.Username, u.Password, about})
	}
	return list
}

func (p *Provider) loginPage(w http.ResponseWriter, status int, page loginPage) {
	p.render(w, status, "login", struct {
		loginPage
		Hints []hint
	}{page, p.hints()})
}

func (p *Provider) factorPage(w http.ResponseWriter, status int, page factorPage) {
	p.render(w, status, "factor", page)
}

func (p *Provider) logoutPage(w http.ResponseWriter, page logoutPage) {
	p.render(w, http.StatusOK, "logout", page)
}

func (p *Provider) signedOutPage(w http.ResponseWriter) {
	p.render(w, http.StatusOK, "signed-out", nil)
}

// errorPage answers 400 where it is not known where to redirect to.
func (p *Provider) errorPage(w http.ResponseWriter, text string) {
	p.options.Log.Info("refused", "why", text)
	p.render(w, http.StatusBadRequest, "error", text)
}

// render sends a page. The policy names no form-action: browsers apply it to
// the redirect after a form too, and that goes to the client.
func (p *Provider) render(w http.ResponseWriter, status int, name string, page any) {
	nonce := p.secret()
	var body bytes.Buffer
	err := p.pages.ExecuteTemplate(&body, name, frame{
		Name: p.options.Name, Nonce: nonce, Base: strings.TrimSuffix(p.issuer, "/"), Page: page,
	})
	if err != nil {
		p.options.Log.Error("page", "name", name, "err", err)
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = body.WriteTo(w) // an error means that the browser is gone
}
