package authn

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
)

// Identify fills in who asks: req.Identity with req.Credential from an access
// token, with req.Session from the session cookie or, where there is no live
// session, from a workload's client certificate.
//
// Where a provider accepts access tokens, a token in the request decides: one
// that is refused leaves Nobody and the reason in req.Credential.Problem, and the
// cookie is not looked at. The Authorization header is Doorward's then, and must
// not be passed on.
//
// No token and no live session leave Nobody and are no error: logging in is the
// cure. An error means that the question could not be answered, such as
// StoreUnavailable; it is an *access.Error.
func (a *Authenticator) Identify(r *http.Request, req *access.Request) error {
	if a.ReadsToken(r) {
		req.Credential.Scheme = tokenScheme(r.Header["Authorization"])
		token, err := a.tokens.identify(r, req)
		if err != nil {
			req.Credential.Problem = access.ReasonOf(err)
			level := slog.LevelDebug
			if req.Credential.Problem.Info().Status >= http.StatusInternalServerError {
				level = slog.LevelWarn
			}
			a.log.Log(r.Context(), level, "an access token was refused", "request", req.ID, "error", err)
			return nil
		}
		token.fill(req)
		return nil
	}
	if err := a.identifySession(r, req); err != nil || !req.Identity.Nobody() {
		return err
	}
	return a.identifyWorkload(r, req)
}

// ReadsToken reports whether a request has a token that decides who asks, and not
// one that is for the application.
func (a *Authenticator) ReadsToken(r *http.Request) bool {
	return tokenScheme(r.Header["Authorization"]) != "" && a.tokens.accepted()
}

// The schemes by which access tokens are sent (RFC 6750 §2.1, RFC 9449 §7.1).
const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// tokenScheme returns the scheme of the first Authorization header that has one
// of ours, "" if none has.
func tokenScheme(values []string) string {
	for _, value := range values {
		scheme, _, _ := strings.Cut(value, " ")
		for _, known := range []string{schemeBearer, schemeDPoP} {
			if strings.EqualFold(scheme, known) {
				return known
			}
		}
	}
	return ""
}

// accessToken is a token that its issuer vouches for. Whoever sends it has yet
// to show that it is theirs, where it is bound to a key.
type accessToken struct {
	identity access.Identity
	issued   time.Time // zero: not stated
	expires  time.Time // zero: not stated
	binding  binding
}

// fill says who sent a request that came with the token.
func (t *accessToken) fill(req *access.Request) {
	req.Identity, req.Credential.Issued, req.Credential.Expires = t.identity, t.issued, t.expires
}

// tokenKey stands for a token. What is cached under it depends on nothing else
// but the configuration, and every configuration has caches of its own.
type tokenKey [sha256.Size]byte

// finding is what was found out about a token, good until a moment.
type finding struct {
	token *accessToken // nil: refused
	err   error
	until time.Time
}

const (
	maxAccessToken  = 32 << 10
	maxFindings     = 8 << 10
	verifiedFor     = 5 * time.Minute // at most; never beyond the token's own end
	refusedFor      = 10 * time.Second
	maxIntrospected = 32 // questions to a provider under way at the same time
)

// tokens accepts access tokens. Findings are kept apart, so that a flood of bad
// tokens cannot push out good ones.
type tokens struct {
	issuers  []*client // that have audiences
	asked    *client   // the one that knows about opaque tokens; nil: none
	verified *lru.Cache[tokenKey, finding]
	refused  *lru.Cache[tokenKey, finding]
	flights  singleflight.Group
	slots    chan struct{}
	revoked  func(issuer, subject string, issued time.Time) (bool, error)
	proofs   *proofs
	now      func() time.Time
}

func newTokens(all []*client, sessions *session.Manager, now func() time.Time, previous *Authenticator) (*tokens, error) {
	t := &tokens{now: now, slots: make(chan struct{}, maxIntrospected), revoked: sessions.Revoked, proofs: &proofs{now: now, once: sessions.Once}}
	for _, c := range all {
		if len(c.cfg.Audiences) == 0 {
			continue
		}
		t.issuers = append(t.issuers, c)
		if c.cfg.Introspection.Cache == 0 {
			continue
		}
		if t.asked != nil {
			return nil, fmt.Errorf("providers %s and %s both have introspection; an opaque token does not say whose it is", t.asked.cfg.ID, c.cfg.ID)
		}
		t.asked = c
	}
	if previous != nil && previous.sessions == sessions {
		t.proofs = previous.tokens.proofs // a reload forgets no proof
	}
	var err error
	if t.verified, err = lru.New[tokenKey, finding](maxFindings); err != nil {
		return nil, err
	}
	t.refused, err = lru.New[tokenKey, finding](maxFindings)
	return t, err
}

// accepted reports whether any provider's access tokens are.
func (t *tokens) accepted() bool { return len(t.issuers) > 0 }

// identify returns the token of a request, if it counts for this request.
func (t *tokens) identify(r *http.Request, req *access.Request) (*accessToken, error) {
	token, err := t.read(r)
	if err != nil {
		return nil, err
	}
	_, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return token, t.held(r, req, strings.TrimLeft(raw, " "), &token.binding)
}

// read returns the token of a request, if it counts at all. Whose it is remains
// to be shown.
func (t *tokens) read(r *http.Request) (*accessToken, error) {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return nil, access.Becausef(access.BadRequest, "%d Authorization headers", len(values)) // RFC 9110 §5.3
	}
	_, raw, _ := strings.Cut(values[0], " ")
	raw = strings.TrimLeft(raw, " ")
	token, err := t.find(r.Context(), raw)
	if err != nil {
		return nil, err
	}
	if !token.expires.IsZero() && !t.now().Before(token.expires) {
		return nil, access.Becausef(access.TokenExpired, "it ended at %s", token.expires.Format(time.RFC3339))
	}
	// The issuer's clock may be ahead of ours, by which revocations count.
	revoked, err := t.revoked(token.identity.Issuer, token.identity.Subject, token.issued.Add(-skew))
	switch {
	case err != nil:
		return nil, err
	case revoked:
		return nil, access.Becausef(access.TokenRevoked, "whatever %s was issued until a moment ago is revoked", token.identity.User())
	}
	return token, nil
}

// isToken68 follows RFC 9110 §11.2.
func isToken68(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := range len(body) {
		if !token68Byte[body[i]] {
			return false
		}
	}
	return body != ""
}

// token68Byte are the bytes that a token68 may have in front of its padding.
var token68Byte = func() (table [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		table[c] = true
	}
	return table
}()

// find returns what is known of a token, or finds it out. That the answer is not
// known is never kept.
func (t *tokens) find(ctx context.Context, raw string) (*accessToken, error) {
	if len(raw) > maxAccessToken {
		return nil, access.Becausef(access.TokenInvalid, "an access token of %d bytes", len(raw))
	}
	key := tokenKey(sha256.Sum256([]byte(raw)))
	for _, cache := range []*lru.Cache[tokenKey, finding]{t.verified, t.refused} {
		if known, ok := cache.Get(key); ok && t.now().Before(known.until) {
			return known.token, known.err
		}
	}
	if !isToken68(raw) { // what is known has been one
		return nil, access.Becausef(access.BadRequest, "the Authorization header holds no token")
	}
	// A client that sends many requests at once causes one question. It is asked
	// for all of them, so it does not end with the first.
	found, _, _ := t.flights.Do(string(key[:]), func() (any, error) {
		return t.findOut(context.WithoutCancel(ctx), key, raw), nil
	})
	f := found.(finding)
	return f.token, f.err
}

// findOut verifies a token and keeps what came of it.
func (t *tokens) findOut(ctx context.Context, key tokenKey, raw string) finding {
	token, life, err := t.verify(ctx, raw)
	if err != nil {
		f := finding{err: err, until: t.now().Add(refusedFor)}
		if access.ReasonOf(err).Info().Status < http.StatusInternalServerError {
			t.verified.Remove(key)
			t.refused.Add(key, f)
		}
		return f
	}
	f := finding{token: token, until: t.now().Add(life)}
	if !token.expires.IsZero() && token.expires.Before(f.until) {
		f.until = token.expires
	}
	t.verified.Add(key, f)
	return f
}

// verify finds out about a token, and for how long that may be relied on. Errors
// carry their reason.
func (t *tokens) verify(ctx context.Context, raw string) (*accessToken, time.Duration, error) {
	if strings.Count(raw, ".") != 2 {
		if t.asked == nil {
			return nil, 0, access.Becausef(access.TokenInvalid, "not a JSON Web Token, and no provider has introspection")
		}
		return t.introspect(ctx, t.asked, raw)
	}
	c, token, err := t.verifyJWT(ctx, raw)
	switch {
	case err != nil:
		return nil, 0, err
	case c == t.asked:
		// Its signature says what it was, only the provider knows what it is.
		_, life, err := t.introspect(ctx, c, raw)
		return token, life, err
	case c.cluster != nil && c.cfg.Kubernetes.Review:
		return token, reviewedFor, c.review(ctx, raw, token.identity.ServiceAccount)
	}
	return token, verifiedFor, nil
}
