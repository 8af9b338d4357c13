package admin

import (
	"context"
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// Sessions shows who is logged in, and ends logins. Errors without a Fault mean
// that it could not tell.
type Sessions interface {
	// List returns sessions, of one user ("PROVIDER:SUB") or, without one, of all,
	// at most limit. More tells that there are others.
	List(ctx context.Context, user string, limit int) (list []access.SessionInfo, more bool, err error)
	// Show returns one session, nil if there is none.
	Show(ctx context.Context, id string) (*access.SessionInfo, error)
	// Revoke ends one session on behalf of by, and reports whether there was one.
	Revoke(ctx context.Context, id, by string) (bool, error)
}

// SessionList is the answer of GET /api/v1/sessions.
type SessionList struct {
	Sessions []access.SessionInfo `json:"sessions"`
	// More tells that the list was cut off.
	More bool `json:"more,omitempty"`
}

// SessionRevoked is the answer of POST /api/v1/sessions/ID/revoke.
type SessionRevoked struct {
	Session string `json:"session"`
}

func (a *api) sessionEndpoints() []endpoint {
	if a.Sessions == nil {
		return nil
	}
	return []endpoint{
		{"GET /api/v1/sessions", a.show(func(r *http.Request) (any, error) {
			limit, err := limitOf(r)
			if err != nil {
				return nil, err
			}
			list, more, err := a.Sessions.List(r.Context(), r.FormValue("user"), limit)
			if list == nil {
				list = []access.SessionInfo{}
			}
			return SessionList{list, more}, err
		})},
		{"GET /api/v1/sessions/{id}", a.show(func(r *http.Request) (any, error) {
			info, err := a.Sessions.Show(r.Context(), r.PathValue("id"))
			if err == nil && info == nil {
				err = errNoSession
			}
			return info, err
		})},
		{"POST /api/v1/sessions/{id}/revoke", action(a, revokingSession, func(r *http.Request, _ Deed, deed Deed) (outcome, error) {
			return a.revokeSession(r, deed)
		})},
	}
}

const revokingSession = "revoking a session"

var errNoSession = &Fault{http.StatusNotFound, "there is no such session", "see: doorward sessions list"}

// revokeSession ends the session that the path names.
func (a *api) revokeSession(r *http.Request, deed Deed) (outcome, error) {
	id := r.PathValue("id")
	ended, err := a.Sessions.Revoke(r.Context(), id, deed.Actor)
	if err == nil && !ended {
		err = errNoSession
	}
	return outcome{answer: SessionRevoked{id}, note: "session revoked", session: id}, err
}
