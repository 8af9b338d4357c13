package authn

import (
	"context"
	"net/http"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
)

// IdentifyAgain is Identify for a request that is open still; req.Session is that
// of the last time. An access token is looked at again, as far as its issuer
// still vouches for it, but not the proof that whoever sent it holds its key: a
// proof counts once, and did. A session counts as used only if used says so, and
// may have got another cookie meanwhile. Where it is over, the error says how,
// with a reason that a login cures, and Nobody is left.
func (a *Authenticator) IdentifyAgain(r *http.Request, req *access.Request, used bool) error {
	was := req.Session.ID
	req.Session = access.Session{}
	if a.ReadsToken(r) {
		req.Credential.Scheme = tokenScheme(r.Header["Authorization"])
		token, err := a.tokens.read(r)
		if err != nil {
			req.Credential.Problem = access.ReasonOf(err)
			return nil
		}
		token.fill(req)
		return nil
	}
	err := a.loadSession(r, req, func(ctx context.Context, secret, origin string, now time.Time) (*session.Entry, error) {
		load := a.sessions.Peek
		if used {
			load = a.sessions.Load
		}
		entry, err := load(ctx, secret, origin, now)
		if access.ReasonOf(err) == access.LoginRequired && was != "" {
			return a.sessions.Reopen(ctx, was, now, used)
		}
		return entry, err
	})
	if err == nil && req.Identity.Nobody() {
		return a.identifyWorkload(r, req)
	}
	return err
}
