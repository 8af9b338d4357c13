package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/doorward/doorward/internal/access"
)

// endpoint is one address of the API. Each file that has some returns them from
// a method of api; endpoints joins them.
type endpoint struct {
	// pattern is one of http.ServeMux, with its method: "GET /api/v1/sessions".
	pattern string
	serve   http.HandlerFunc
}

// endpoints is everything that needs the token.
func (a *api) endpoints() http.Handler {
	mux := http.NewServeMux()
	for _, e := range slices.Concat(
		a.sessionEndpoints(),
		a.decisionEndpoints(),
		a.deviceEndpoints(),
		a.revocationEndpoints(),
	) {
		mux.HandleFunc(e.pattern, e.serve)
	}
	return mux
}

// Fault is an answer of the API that is no success, for the operator who asked.
type Fault struct {
	// Status is the HTTP status.
	Status int `json:"-"`
	// Text says what is wrong, Cure what to do about it.
	Text string `json:"error"`
	Cure string `json:"cure,omitempty"`
}

// Error implements error.
func (f *Fault) Error() string {
	if f.Cure == "" {
		return f.Text
	}
	return f.Text + "; " + f.Cure
}

// protect lets those in whom the route has let in, or who show the token (RFC
// 6750 §2.1). Without a token in the configuration nobody shows it.
func (a *api) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if callerOf(r) != nil {
			next.ServeHTTP(w, r)
			return
		}
		token := a.Token()
		want := token.Reveal()
		if want == "" {
			a.fail(w, &Fault{http.StatusForbidden, "no token is configured, so nobody may use this part of the API",
				"make one with `openssl rand -base64 32`, keep it in a file, name it in server.admin.token and reload"})
			return
		}
		values := r.Header["Authorization"]
		if len(values) != 1 || !sameSecret(strings.TrimPrefix(values[0], "Bearer "), want) || !strings.HasPrefix(values[0], "Bearer ") {
			if len(values) > 0 {
				a.Log.Warn("admin request with a wrong token", "remote", r.RemoteAddr, "path", r.URL.Path)
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="doorward admin"`)
			a.fail(w, &Fault{http.StatusUnauthorized, "the token is missing or wrong", "send the one that server.admin.token names, as Authorization: Bearer TOKEN"})
			return
		}
		next.ServeHTTP(w, withCaller(r, &caller{Person: Person{MayAct: true}}))
	})
}

// sameSecret compares in constant time, whatever the lengths.
func sameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// show serves what is only looked at.
func (a *api) show(find func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := find(r)
		if err != nil {
			a.fail(w, err)
			return
		}
		a.reply(w, http.StatusOK, answer)
	}
}

// maxList bounds one listing, so that asking costs a bounded amount of memory.
const maxList = 1000

// limitOf reads how much of a list is wanted.
func limitOf(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return maxList, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxList {
		return 0, &Fault{http.StatusBadRequest, "limit is no number from 1 to " + strconv.Itoa(maxList), ""}
	}
	return limit, nil
}

// Deed says who does something and why. It is part of the body of every action.
type Deed struct {
	// Actor is who acts. The token proves only that they hold it, so the audit
	// log says that the name is asserted. Whoever came by the route is known, and
	// what they write here counts for nothing.
	Actor string `json:"actor"`
	// Why is the reason, for whoever reads the audit log later.
	Why string `json:"why"`
}

func (d Deed) deed() Deed { return d }

// The longest actor and reason, in bytes.
const (
	maxActor = 200
	maxWhy   = 500
)

func (d Deed) check() error {
	for _, field := range []struct {
		name, value string
		limit       int
	}{{"actor", d.Actor, maxActor}, {"why", d.Why, maxWhy}} {
		switch {
		case strings.TrimSpace(field.value) == "":
			return &Fault{http.StatusBadRequest, field.name + " is missing", "say who acts and why; the audit log keeps both"}
		case len(field.value) > field.limit:
			return &Fault{http.StatusBadRequest, fmt.Sprintf("%s has %d bytes, more than %d", field.name, len(field.value), field.limit), "make it shorter"}
		case strings.ContainsFunc(field.value, unicode.IsControl):
			return &Fault{http.StatusBadRequest, field.name + " holds control characters", "write it on one line"}
		}
	}
	return nil
}

// outcome is what an action did: the answer, and the same in words for the audit
// log. Session is set if the action was about one session.
type outcome struct {
	answer        any
	note, session string
}

// action serves what changes something. B is the body, a struct that embeds
// Deed.
func action[B interface{ deed() Deed }](a *api, name string, do func(r *http.Request, body B, deed Deed) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body B
		err := readBody(w, r, &body)
		var done outcome
		if err == nil {
			done, err = a.perform(r, name, body.deed(), func(r *http.Request, deed Deed) (outcome, error) { return do(r, body, deed) })
		}
		if err != nil {
			a.fail(w, err)
			return
		}
		a.reply(w, http.StatusOK, done.answer)
	}
}

// perform does something on behalf of whoever asks. Every attempt that says who
// and why leaves an audit event; what it says when that fails begins with the
// name of the action.
func (a *api) perform(r *http.Request, name string, deed Deed, do func(*http.Request, Deed) (outcome, error)) (outcome, error) {
	who := callerOf(r)
	if who == nil {
		return outcome{}, &Fault{http.StatusForbidden, "nobody is known to ask", "log in"}
	}
	if who.proven || who.glass != "" {
		deed.Actor = who.User
	}
	if err := deed.check(); err != nil {
		return outcome{}, err
	}
	var done outcome
	var err error
	if who.MayAct {
		// What was begun is done, also if whoever asked does not wait.
		done, err = do(r.WithContext(context.WithoutCancel(r.Context())), deed)
	} else {
		err = &Fault{http.StatusForbidden, "you may look, and change nothing", "ask somebody who is in another group than those of server.admin.view_groups"}
	}
	event := &access.Event{Kind: access.EventAdmin, Time: a.Now(), Reason: access.Allowed, Actor: deed.Actor,
		Why: deed.Why, Session: done.session, Note: done.note}
	if err != nil {
		event.Reason, event.Note = reasonOf(err), fmt.Sprintf("%s failed: %v", name, err)
	}
	event.Note += who.note()
	a.Emit(event)
	return done, err
}

// reasonOf is what the audit log calls an action that failed: a mistake of the
// one who asked, or what went wrong.
func reasonOf(err error) access.Reason {
	if fault, ok := errors.AsType[*Fault](err); ok {
		if fault.Status == http.StatusForbidden {
			return access.NotAllowed
		}
		return access.BadRequest
	}
	return access.ReasonOf(err)
}

const maxBody = 64 << 10

// readBody reads a JSON object strictly: what it does not know, it refuses.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &Fault{http.StatusUnsupportedMediaType, fmt.Sprintf("a body of type %.60q", r.Header.Get("Content-Type")), "send application/json"}
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		return &Fault{http.StatusBadRequest, "the body cannot be used: " + err.Error(), ""}
	}
	return nil
}

// fail answers with an error. Its readers are operators, so they get its text.
func (a *api) fail(w http.ResponseWriter, err error) {
	fault, ok := errors.AsType[*Fault](err)
	if !ok {
		fault = &Fault{Status: access.ReasonOf(err).Info().Status, Text: err.Error()}
		a.Log.Warn("an admin request failed", "error", err)
	}
	a.reply(w, fault.Status, fault)
}
