package session

import (
	"context"
	"errors"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// errUnchanged tells that there was nothing to amend.
var errUnchanged = errors.New("unchanged")

// Amend changes what is known of the person of a login, on behalf of by, on every
// replica: what became known after the login, and not by a refresh. change gets
// a copy of the identity, whose lists and claims it must replace rather than
// write into, and reports whether it changed anything; it may be called several
// times. It cannot make the login somebody else's. A login that has ended is not
// changed, and that is no error.
func (m *Manager) Amend(ctx context.Context, id string, change func(*access.Identity) bool, by string) (bool, error) {
	var amended access.Identity
	_, err := m.update(ctx, id, func(rec *loginRecord) error {
		identity := rec.Identity
		if !change(&identity) {
			return errUnchanged
		}
		identity.Provider = rec.Identity.Provider
		if !samePerson(&identity, &rec.Identity) {
			return access.Because(access.InternalError, errors.New("session: an amendment names another person"))
		}
		var err error
		if amended, err = settle(&identity); err != nil {
			return access.Because(access.InternalError, err)
		}
		rec.Identity = amended
		return nil
	})
	switch {
	case errors.Is(err, errUnchanged), errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil:
		return false, storeError(err)
	}
	m.report(access.EventSession, "", id, &amended, "amended by "+by)
	return true, nil
}
