package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The pages can be opened with the token alone, for the night in which nobody
// gets through the door: from this machine, which an SSH tunnel or a port-forward
// of Kubernetes leads to.
const (
	// glassCookie holds what the token was exchanged for. Cookies know no ports:
	// whatever else the browser opens at the same host gets it as well, so it ends
	// soon and opens nothing but this process.
	glassCookie   = "doorward-admin"
	glassLifetime = 30 * time.Minute
	// maxGlass is how many may be logged in at a time.
	maxGlass = 32
	// glassTries may be made at once, and one more each glassPause. A token of 32
	// bytes is not guessed; this keeps whoever tries from filling the audit log.
	glassTries = 10
	glassPause = 6 * time.Second
)

// breakGlass keeps who has opened the pages with the token. It is lost with the
// process.
type breakGlass struct {
	mu       sync.Mutex
	sessions map[[sha256.Size]byte]glassSession
	tries    int // left
	refilled time.Time
}

type glassSession struct {
	name    string
	expires time.Time
	// token is a hash of the one that opened it: another one ends it.
	token [sha256.Size]byte
}

// try takes one attempt, if there is one left.
func (b *breakGlass) try(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refilled.IsZero() {
		b.tries, b.refilled = glassTries, now
	}
	if n := int(now.Sub(b.refilled) / glassPause); n > 0 {
		b.tries, b.refilled = min(b.tries+n, glassTries), b.refilled.Add(time.Duration(n)*glassPause)
	}
	if b.tries == 0 {
		return false
	}
	b.tries--
	return true
}

// open begins a session and returns its secret; empty if there are too many.
func (b *breakGlass) open(name, token string, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.sessions {
		if !now.Before(s.expires) {
			delete(b.sessions, id)
		}
	}
	if len(b.sessions) >= maxGlass {
		return ""
	}
	if b.sessions == nil {
		b.sessions = map[[sha256.Size]byte]glassSession{}
	}
	secret := rand.Text() + rand.Text()
	b.sessions[sha256.Sum256([]byte(secret))] = glassSession{name, now.Add(glassLifetime), sha256.Sum256([]byte(token))}
	return secret
}

// find returns whose session a secret opens, as long as the token is the same.
func (b *breakGlass) find(secret, token string, now time.Time) *caller {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sessions[sha256.Sum256([]byte(secret))]
	if !ok || token == "" || !now.Before(s.expires) || s.token != sha256.Sum256([]byte(token)) {
		return nil
	}
	return &caller{Person: Person{User: s.name, Name: s.name, MayAct: true}, glass: secret}
}

func (b *breakGlass) close(secret string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, sha256.Sum256([]byte(secret)))
}

// glassCaller returns who has opened the pages with the token.
func (a *api) glassCaller(r *http.Request) *caller {
	cookies := r.CookiesNamed(glassCookie)
	if len(cookies) != 1 || !near(r) {
		return nil
	}
	token := a.Token()
	return a.glass.find(cookies[0].Value, token.Reveal(), a.Now())
}

// login serves GET and POST /login.
func (a *api) login(w http.ResponseWriter, r *http.Request) {
	if callerOf(r) != nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	token := a.Token()
	view := loginView{report: a.report(), Configured: token.Reveal() != "", Near: near(r)}
	if r.Method != http.MethodPost {
		a.render(w, r, http.StatusOK, "login", "Log in", view)
		return
	}
	name, status := "", http.StatusOK
	if err := a.readForm(w, r); err != nil {
		view.Wrong, status = err.Error(), http.StatusBadRequest
	} else {
		name = strings.TrimSpace(r.PostForm.Get("name"))
		status, view.Wrong = a.tryToken(name, r.PostForm.Get("token"), view.Configured && view.Near)
	}
	if view.Wrong != "" {
		a.Log.Warn("admin login failed", "remote", r.RemoteAddr, "why", view.Wrong)
		view.Name = name
		a.render(w, r, status, "login", "Log in", view)
		return
	}
	secret := a.glass.open(name, token.Reveal(), a.Now())
	if secret == "" {
		view.Wrong = "Too many people are logged in with the token. The oldest login ends within half an hour."
		a.render(w, r, http.StatusTooManyRequests, "login", "Log in", view)
		return
	}
	a.Emit(&access.Event{Kind: access.EventAdmin, Time: a.Now(), Reason: access.Allowed, Actor: name,
		Note: "logged in to the admin pages with the token" + (&caller{}).note()})
	http.SetCookie(w, &http.Cookie{Name: glassCookie, Value: secret, Path: "/", MaxAge: int(glassLifetime / time.Second), HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// tryToken judges one attempt; it returns what is wrong with it, if anything.
func (a *api) tryToken(name, given string, possible bool) (status int, wrong string) {
	if err := (Deed{Actor: name, Why: "-"}).check(); err != nil {
		return http.StatusBadRequest, "Write your name, on one line of at most 200 bytes."
	}
	if !possible {
		return http.StatusForbidden, "Nobody can log in with a token here."
	}
	if !a.glass.try(a.Now()) {
		return http.StatusTooManyRequests, "Too many attempts. Wait a minute."
	}
	token := a.Token()
	if sameSecret(strings.TrimSpace(given), token.Reveal()) {
		return http.StatusOK, ""
	}
	a.Emit(&access.Event{Kind: access.EventAdmin, Time: a.Now(), Reason: access.BadRequest, Actor: name,
		Note: "a login to the admin pages failed: the token is wrong" + (&caller{}).note()})
	return http.StatusForbidden, "The token is wrong. It is the one that server.admin.token names."
}

// logout serves POST /logout.
func (a *api) logout(w http.ResponseWriter, r *http.Request) {
	who := callerOf(r)
	if who.proven { // whoever came by the route logs out at its host
		http.Redirect(w, r, access.LogoutPath, http.StatusSeeOther)
		return
	}
	a.glass.close(who.glass)
	http.SetCookie(w, &http.Cookie{Name: glassCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// loginView is the page that asks for the token, and tells whoever reaches the
// listener how the process is doing.
type loginView struct {
	report
	// Configured tells that there is a token, Near that it may be typed in here.
	Configured, Near bool
	Name, Wrong      string
}
