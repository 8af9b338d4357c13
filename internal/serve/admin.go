package serve

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/session"
)

// adminToken is the token of the configuration in force.
func (l *live) adminToken() access.Secret { return l.current.Load().cfg.Server.Admin.Token }

// person finds who PROVIDER:SUB is in terms of sessions, which know issuers.
func person(providers []authn.Provider, user string) (session.Match, error) {
	provider, subject, ok := strings.Cut(user, ":")
	for i := range providers {
		p := &providers[i]
		if ok && subject != "" && p.ID == provider {
			return session.Match{Issuer: p.IssuerName(), Subject: subject}, nil
		}
	}
	return session.Match{}, &admin.Fault{Status: http.StatusBadRequest, Text: fmt.Sprintf("%q is no user", user),
		Cure: "write PROVIDER:SUB with the id of a configured provider, as `doorward sessions list` prints it"}
}

// adminSessions implements admin.Sessions.
type adminSessions struct{ *live }

func (a adminSessions) List(ctx context.Context, user string, limit int) ([]access.SessionInfo, bool, error) {
	var match session.Match
	if user != "" {
		var err error
		if match, err = person(a.current.Load().cfg.Providers, user); err != nil {
			return nil, false, err
		}
	}
	list, more, err := a.sessions.List(ctx, match, limit)
	for i := range list {
		list[i].Open = a.door.OpenStreams(list[i].ID)
	}
	return list, more, err
}

func (a adminSessions) Show(ctx context.Context, id string) (*access.SessionInfo, error) {
	list, _, err := a.sessions.List(ctx, session.Match{LoginID: id}, 1)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	list[0].Open = a.door.OpenStreams(id)
	return &list[0], nil
}

func (a adminSessions) Revoke(ctx context.Context, id, by string) (bool, error) {
	n, err := a.sessions.Revoke(ctx, session.Match{LoginID: id}, access.SessionEnded, by+", by the admin API")
	return n > 0, err
}

// adminRevocations implements admin.Revocations.
type adminRevocations struct{ *live }

func (a adminRevocations) Revoke(ctx context.Context, r access.Revocation) (access.Revocation, int, error) {
	var match session.Match
	if r.User != "" {
		var err error
		if match, err = person(a.current.Load().cfg.Providers, r.User); err != nil {
			return r, 0, err
		}
		r.Issuer, r.Subject = match.Issuer, match.Subject
	}
	// First what makes everything from before worthless, so that nothing that is
	// begun meanwhile escapes; then the records, which may take a while.
	r, err := a.sessions.NotBefore(ctx, r)
	if err != nil {
		return r, 0, err
	}
	switch {
	case r.All:
		a.sessions.EndAllBefore(r.At, r.By)
		return r, 0, nil
	case r.Device != "":
		return r, 0, nil // each of its sessions ends when it is used next
	}
	n, err := a.sessions.Revoke(ctx, match, access.SessionEnded, r.By+", by the admin API")
	return r, n, err
}

func (a adminRevocations) List() ([]access.Revocation, error) { return a.sessions.Revocations() }

func (a adminRevocations) Lift(ctx context.Context, id string) (bool, error) {
	return a.sessions.Lift(ctx, id)
}
