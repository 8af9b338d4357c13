package proxy

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Forms keeps what a person posted while a login comes in between.
type Forms interface {
	// Keep takes a posted form and returns the address of the login that leads
	// back to it. It may set a cookie and writes nothing else.
	Keep(w http.ResponseWriter, r *http.Request, req *access.Request, ask access.LoginRequire, provider string, form access.Form) (login string, err error)
	// Release returns the form with this id, once, to the person who sent it.
	Release(r *http.Request, req *access.Request, id string) (access.Form, error)
}

const (
	defaultReplayBytes = 64 << 10
	mostReplayBytes    = 512 << 10
	// replayPatience is how long a stranger may take to send a form to keep.
	replayPatience = 10 * time.Second
	keptIDBytes    = 22
)

var errFormRefused = errors.New("the request to send a form again is not from a page of this host")

// replayBytes is the largest form that is kept; 0 or less: none is.
func (c *Config) replayBytes() int { return orDefault(c.ReplayBodyBytes, defaultReplayBytes) }

// keepForm keeps what a person posted if a login is all that is missing, and
// returns the address of the login that leads back to it.
func (p *passage) keepForm() (login string, kept bool) {
	ask, curable := p.loginCures()
	if !curable || p.answering != ourselves || p.gen.Forms == nil || p.gen.Server.replayBytes() < 1 || !p.ownForm() || p.path.Ambiguous != 0 {
		return "", false
	}
	form := access.Form{Again: p.formAgain()}
	if form.Again == "" {
		var ok bool
		if form, ok = p.readForm(); !ok {
			return "", false
		}
	}
	login, err := p.gen.Forms.Keep(&p.out, p.in, p.req, ask, p.entry.Route.Provider, form)
	if err != nil {
		p.note(err)
		return "", false
	}
	return login, true
}

// ownForm reports whether a person posted the request from a page of the same
// origin. Nothing else is kept: another site could have a visitor send, after a
// login, what that site wrote.
func (p *passage) ownForm() bool {
	h := p.in.Header
	if p.in.Method != http.MethodPost || kindOf(p.in) != form {
		return false
	}
	if dest := h.Get("Sec-Fetch-Dest"); dest != "" && dest != "document" {
		return false // a frame; no login page would be shown in it
	}
	return h.Get("Sec-Fetch-Site") == "none" || p.fromOwnPage()
}

// fromOwnPage reports whether a browser says that a page of the same origin
// sent the request. Where it says nothing, nobody knows.
func (p *passage) fromOwnPage() bool {
	h := p.in.Header
	switch h.Get("Sec-Fetch-Site") {
	case "same-origin":
		return true
	case "":
		return len(h["Origin"]) == 1 && h.Get("Origin") == p.req.Origin()
	}
	return false
}

// readForm reads a form of a kept kind and size.
func (p *passage) readForm() (form access.Form, ok bool) {
	limit := p.gen.Server.replayBytes()
	kind, params, err := mime.ParseMediaType(p.in.Header.Get("Content-Type"))
	switch {
	case err != nil || p.in.ContentLength > int64(limit) || p.in.Header.Get("Content-Encoding") != "":
		return form, false
	case kind == "application/x-www-form-urlencoded", kind == "multipart/form-data" && params["boundary"] != "":
	default:
		return form, false
	}
	// A deadline of the connection is by the wall clock, whatever door.now says.
	conn := http.NewResponseController(&p.out)
	if conn.SetReadDeadline(time.Now().Add(replayPatience)) == nil {
		defer conn.SetReadDeadline(time.Time{})
	}
	body, err := io.ReadAll(io.LimitReader(p.in.Body, int64(limit)+1))
	if err != nil || len(body) > limit {
		return form, false
	}
	return access.Form{ContentType: p.in.Header.Get("Content-Type"), Body: body}, true
}

// formAgain returns the id of the kept form that the page "Send it again?" asks
// to send, or "". Of other requests it reads nothing, unless they are of exactly
// the same length and type, and what it read is put back.
func (p *passage) formAgain() string {
	const length = len(access.FormAgainField) + len("=") + keptIDBytes
	if p.gen.Forms == nil || p.in.Method != http.MethodPost || p.in.ContentLength != int64(length) ||
		p.in.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return ""
	}
	body := make([]byte, length)
	n, err := io.ReadFull(p.in.Body, body)
	rest := p.in.Body
	p.in.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body[:n]), rest), rest}
	if err != nil {
		return ""
	}
	id, _ := strings.CutPrefix(string(body), access.FormAgainField+"=")
	if len(id) != keptIDBytes {
		return ""
	}
	return id
}

// sendAgain puts a kept form in the place of the request to send it. It runs
// after the policy has allowed the request, like any other of its sender.
func (p *passage) sendAgain() error {
	id := p.formAgain()
	if id == "" {
		return nil
	}
	if !p.ownForm() {
		return access.Because(access.FormNotKept, errFormRefused)
	}
	form, err := p.gen.Forms.Release(p.in, p.req, id)
	if err != nil {
		return err
	}
	p.in.Body = io.NopCloser(bytes.NewReader(form.Body))
	p.in.ContentLength = int64(len(form.Body))
	p.in.Header.Set("Content-Type", form.ContentType)
	return nil
}
