package admin

import (
	"context"
	"fmt"
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// Revocations ends access.
type Revocations interface {
	// Revoke ends whatever was issued to a user ("PROVIDER:SUB"), used from a
	// device, or issued to anybody, before now. Exactly one of User, Device and All
	// is set. It returns the revocation as it is remembered, and how many sessions
	// it has ended so far.
	Revoke(ctx context.Context, r access.Revocation) (access.Revocation, int, error)
	// List returns what is revoked, the latest first.
	List() ([]access.Revocation, error)
	// Lift forgets a revocation, and reports whether there was one.
	Lift(ctx context.Context, id string) (bool, error)
}

// RevokeRequest is the body of POST /api/v1/revocations. One of User, Device and
// All says what is revoked.
type RevokeRequest struct {
	Deed
	// User is PROVIDER:SUB.
	User string `json:"user,omitempty"`
	// Device is the id by which the inventories know it.
	Device string `json:"device,omitempty"`
	All    bool   `json:"all,omitempty"`
}

// Revoked is the answer.
type Revoked struct {
	Revocation access.Revocation `json:"revocation"`
	// Ended is how many sessions were ended by the time of the answer. Whatever
	// else the revocation concerns is refused from then on.
	Ended int `json:"sessions_ended"`
}

// RevocationList is the answer of GET /api/v1/revocations.
type RevocationList struct {
	Revocations []access.Revocation `json:"revocations"`
}

// Lifted is the answer of POST /api/v1/revocations/ID/lift.
type Lifted struct {
	Revocation string `json:"revocation"`
}

const maxName = 1024

func (a *api) revocationEndpoints() []endpoint {
	if a.Revocations == nil {
		return nil
	}
	return []endpoint{
		{"GET /api/v1/revocations", a.show(func(*http.Request) (any, error) {
			list, err := a.Revocations.List()
			if list == nil {
				list = []access.Revocation{}
			}
			return RevocationList{list}, err
		})},
		{"POST /api/v1/revocations", action(a, aRevocation, func(r *http.Request, body RevokeRequest, deed Deed) (outcome, error) {
			body.Deed = deed
			return a.revoke(r, body)
		})},
		{"POST /api/v1/revocations/{id}/lift", action(a, liftingRevocation, func(r *http.Request, _ Deed, _ Deed) (outcome, error) {
			return a.lift(r)
		})},
	}
}

const (
	aRevocation       = "a revocation"
	liftingRevocation = "lifting a revocation"
)

func (a *api) revoke(r *http.Request, ask RevokeRequest) (outcome, error) {
	named := 0
	for _, set := range []bool{ask.User != "", ask.Device != "", ask.All} {
		if set {
			named++
		}
	}
	if named != 1 || len(ask.User) > maxName || len(ask.Device) > maxName {
		return outcome{}, &Fault{http.StatusBadRequest, "it is not clear what to revoke", "name one of user, device and all"}
	}
	revoked, ended, err := a.Revocations.Revoke(r.Context(), access.Revocation{
		User: ask.User, Device: ask.Device, All: ask.All, By: ask.Actor, Why: ask.Why,
	})
	return outcome{answer: Revoked{revoked, ended}, note: fmt.Sprintf("%s revoked: %d sessions ended", whatIs(&revoked), ended)}, err
}

// lift forgets the revocation that the path names.
func (a *api) lift(r *http.Request) (outcome, error) {
	id := r.PathValue("id")
	known, err := a.Revocations.Lift(r.Context(), id)
	if err == nil && !known {
		err = &Fault{http.StatusNotFound, "there is no such revocation", "see: doorward revocations list"}
	}
	return outcome{answer: Lifted{id}, note: "revocation " + id + " lifted"}, err
}

// whatIs says in words what a revocation is about.
func whatIs(r *access.Revocation) string {
	switch {
	case r.All:
		return "everything"
	case r.Device != "":
		return fmt.Sprintf("everything used from device %q", r.Device)
	default:
		return fmt.Sprintf("everything of %q", r.User)
	}
}
