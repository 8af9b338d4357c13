package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
)

// kind says who reads the answer to a request, and so how to refuse it.
type kind uint8

const (
	program    kind = iota // fetch, XHR, curl, preflights, WebSocket handshakes
	navigation             // a person opening an address: can be sent to log in
	form                   // a person, but a redirect would lose what they sent
	grpcCall               // reads grpc-status only
)

// kindOf tells requests apart by Fetch metadata, then by Accept, for clients
// that send none, and then by method: `*/*` alone, which curl sends, leaves only
// that. Only a top-level GET navigation is ever redirected.
func kindOf(r *http.Request) kind {
	switch {
	case isGRPC(r):
		return grpcCall
	case isPreflight(r), upgrades(r.Header), strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch"):
		return program
	}
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		switch {
		case mode != "navigate":
			return program
		case get && r.Header.Get("Sec-Fetch-Dest") == "document":
			return navigation
		default:
			return form // also frames, which login pages refuse to be in
		}
	}
	anything := len(r.Header["Accept"]) == 1 && r.Header["Accept"][0] == "*/*" && r.Header.Get("Authorization") == ""
	switch {
	case strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest"):
		return program
	case !acceptsHTML(r.Header["Accept"]) && !(anything && get):
		return program
	case get:
		return navigation
	default:
		return form
	}
}

func acceptsHTML(values []string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			media, params, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(media)) {
			case "text/html", "application/xhtml+xml":
				q := strings.ReplaceAll(strings.ToLower(params), " ", "")
				if q != "q=0" && !strings.HasPrefix(q, "q=0.0") {
					return true
				}
			}
		}
	}
	return false
}

func isGRPC(r *http.Request) bool {
	media, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && r.ProtoMajor == 2 && (media == "" || media[0] == '+' || media[0] == ';')
}

// challenge is station 6 for a request the policy did not let through: what a
// login alone can cure leads a navigation to the login, and everything else is
// refused in the way its sender understands.
func (p *passage) challenge() {
	ask, curable := p.loginCures()
	if curable && kindOf(p.in) == navigation && p.gen.Login != nil && p.answering != byStatus {
		varies(p.out.Header())
		r, end := p.part("begin login")
		err := p.gen.Login.Begin(&p.out, r, p.req, ask, p.entry.Route.Provider)
		end(access.ReasonOf(err))
		if err == nil {
			return
		}
		p.refuseServing(err)
		return
	}
	p.refuse(p.dec.Reason)
}

// loginCures reports whether to send a visitor to log in, and what the login
// has to satisfy. For somebody who is not logged in that comes first, whatever
// else is missing: devices are often known only by who uses them.
func (p *passage) loginCures() (access.LoginRequire, bool) {
	ask, ok := p.dec.LoginOnly()
	if ok || p.dec.Outcome != access.Challenge || !p.req.Identity.Nobody() || !p.dec.Reason.CuredByLogin() {
		return ask, ok
	}
	only := access.Decision{Outcome: access.Challenge}
	for _, need := range p.dec.Needs {
		if need.Reason.CuredByLogin() {
			only.Needs = append(only.Needs, need)
		}
	}
	ask, _ = only.LoginOnly()
	return ask, true
}

// refuse writes the one refusal of a request. It is the only place that does.
// Pages of other origins read it where the route lets them read its answers
// (cors), and nowhere else.
func (p *passage) refuse(reason access.Reason) {
	if p.out.started() {
		// Part of an answer is out already; cutting it off is all that is left.
		panic(http.ErrAbortHandler)
	}
	if p.answering == byStatus {
		p.refuseByStatus(reason)
		return
	}
	rf := p.refusal(reason)
	switch kind := kindOf(p.in); {
	case kind == grpcCall && p.answering == ourselves:
		// Its status is 200, which would be a yes to a front end. They know how to
		// tell gRPC of other statuses, and so do its clients.
		refuseGRPC(&p.out, rf)
	case (kind == navigation || kind == form) && p.limiting.ofMany():
		page.Brief(&p.out, p.in.Method == http.MethodHead, rf)
	case kind == navigation || kind == form:
		if p.entry != nil {
			rf.App = p.req.Host
			rf.User = displayName(&p.req.Identity)
		}
		rf.Links = p.waysOut(reason)
		page.Refuse(&p.out, p.in.Method == http.MethodHead, rf)
	default:
		page.Problem(&p.out, rf)
	}
}

// refusal gathers what every form of a refusal needs, and clears the headers of
// an answer that was begun and given up.
func (p *passage) refusal(reason access.Reason) page.Refusal {
	rf := page.Refusal{Reason: reason, Status: p.status, RequestID: p.req.ID, Time: p.req.Time}
	if rf.Status == 0 {
		rf.Status = reason.Info().Status
	}
	if p.decided && p.entry != nil && reason == p.dec.Reason {
		rf.Decision = p.dec
	}
	h := p.out.Header()
	cookies := h["Set-Cookie"] // a login that failed is over, which the browser has to learn
	clear(h)
	if p.reserved && len(cookies) > 0 {
		h["Set-Cookie"] = cookies
	}
	varies(h)
	if rf.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", p.authenticate(reason)) // RFC 9110 §15.5.2
	}
	if rf.Status == http.StatusServiceUnavailable || rf.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "5")
	}
	p.tellLimit(h)
	if p.tunnel != nil {
		p.refuseTunnel(&rf)
	}
	return rf
}

// varies tells caches what an answer of ours depends on.
func varies(h http.Header) {
	h.Set("Vary", "Cookie, Sec-Fetch-Mode, Sec-Fetch-Dest, Accept")
	h.Set("Cache-Control", "no-store")
}

func displayName(id *access.Identity) string {
	for _, name := range []string{id.Email, id.Username, id.Name} {
		if name != "" {
			return name
		}
	}
	return id.User()
}

// maxReturn is the longest address that a link carries through a login.
const maxReturn = 2000

// waysOut offers what a person can do about a refusal. Who is refused because
// an address means nothing has nowhere to go.
func (p *passage) waysOut(reason access.Reason) []page.Link {
	if p.reserved {
		if p.gen.Routes.Match(p.req.Scheme, p.req.Host, "/") == nil {
			return nil
		}
		links := []page.Link{{Text: "Open the application", URL: "/", Primary: true}}
		switch reason {
		case access.LoginRefused, access.LoginFailed, access.StepUpFailed:
			links = append(links, page.Link{Text: "Use another account", URL: access.LoginPath + "?switch=1"})
		}
		return links
	}
	if p.entry == nil {
		return nil
	}
	here := p.here()
	back := "return=/"
	// What a login could not come back to without doubt leads to the start page.
	if p.path.Ambiguous == 0 && len(here) <= maxReturn {
		back = "return=" + url.QueryEscape(here)
	}
	get := p.in.Method == http.MethodGet || p.in.Method == http.MethodHead
	switch {
	case reason.CuredByLogin() && get:
		return []page.Link{{Text: "Log in", URL: access.LoginPath + "?" + back, Primary: true}}
	case reason == access.FormNotKept:
		return []page.Link{{Text: "Open the address", URL: p.req.Origin() + here, Primary: true}}
	case reason.CuredByLogin():
		if login, kept := p.keepForm(); kept {
			return []page.Link{{Text: "Log in, then send it again (what you sent is kept for ten minutes)", URL: login, Primary: true}}
		}
		return []page.Link{{Text: "Log in, then do it again (what you sent was not kept)", URL: access.LoginPath + "?" + back, Primary: true}}
	}
	var links []page.Link
	switch {
	case p.canRecheck(p.dec):
		if !get {
			back = "return=/"
		}
		links = append(links, page.Link{Text: "Check again", URL: access.RecheckPath + "?" + back, Primary: true, Post: true})
	case get:
		// A path that begins with two slashes would be another host as a link.
		links = append(links, page.Link{Text: "Try again", URL: p.req.Origin() + here, Primary: true})
	}
	if p.req.Identity.Nobody() {
		return append(links, page.Link{Text: "Log in", URL: access.LoginPath + "?" + back})
	}
	return append(links,
		page.Link{Text: "Use another account", URL: access.LoginPath + "?switch=1&" + back},
		page.Link{Text: "Log out", URL: access.LogoutPath, Post: true})
}

// authenticate returns the WWW-Authenticate value for a 401: what is missing in
// terms of RFC 6750 §3 and RFC 9449 §7.1 and, for a login that is not strong or recent enough,
// RFC 9470 §3.
func (p *passage) authenticate(reason access.Reason) string {
	scheme := "Bearer"
	if p.req.Credential.Scheme == "DPoP" {
		scheme = "DPoP" // RFC 9449 §7.1
	}
	value := scheme + ` realm="doorward"`
	switch reason {
	case access.TokenInvalid, access.TokenExpired, access.TokenAudience, access.TokenNotAccessToken,
		access.TokenBindingMismatch, access.TokenRevoked:
		return value + `, error="invalid_token", error_description=` + quoted(reason.Info().Title)
	case access.ProofInvalid:
		return value + `, error="invalid_dpop_proof", error_description=` + quoted(reason.Info().Title) + `, algs="ES256 PS256 EdDSA RS256"`
	case access.LoginTooOld, access.SessionTooOld, access.ACRInsufficient, access.AMRInsufficient, access.PhishingResistantNeeded:
	default:
		return value
	}
	ask, _ := p.loginCures()
	if entra := claimsChallenge(ask, &p.req.Identity); entra != "" {
		return value + entra
	}
	value += `, error="insufficient_user_authentication", error_description="A different authentication level is required"`
	if classes := ask.Classes(); len(classes) > 0 {
		value += ", acr_values=" + quoted(strings.Join(classes, " "))
	}
	if ask.MaxAge > 0 {
		value += ", max_age=" + quoted(strconv.FormatInt(int64(ask.MaxAge.Std().Seconds()), 10))
	}
	return value
}

// quoted writes a quoted-string (RFC 9110 §5.6.4).
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c < 0x7f:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// grpcStatus returns the code that gRPC itself maps an HTTP status to.
func grpcStatus(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "13" // internal
	case http.StatusUnauthorized:
		return "16" // unauthenticated
	case http.StatusForbidden:
		return "7" // permission denied
	case http.StatusNotFound:
		return "12" // unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "14" // unavailable
	default:
		return "2" // unknown
	}
}

// refuseGRPC answers with headers only, which gRPC calls Trailers-Only.
func refuseGRPC(w http.ResponseWriter, rf page.Refusal) {
	h := w.Header()
	h.Del("Www-Authenticate")
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", grpcStatus(rf.Status))
	h.Set("Grpc-Message", rf.Reason.Info().Title)
	h.Set("X-Request-Id", rf.RequestID)
	w.WriteHeader(http.StatusOK)
}
