package signals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

const (
	// skew is how far a transmitter's clock may be ahead of ours.
	skew = time.Minute
	// remembered is how long the jti of a token is remembered. Older tokens are
	// refused, because nobody could tell whether they come again.
	remembered = 7 * 24 * time.Hour

	maxID = 512 // bytes of a jti
)

// The error codes of RFC 8935 §2.4 and SSF 1.0 §8.1.4.
const (
	invalidRequest       = "invalid_request"
	invalidKey           = "invalid_key"
	invalidIssuer        = "invalid_issuer"
	invalidAudience      = "invalid_audience"
	authenticationFailed = "authentication_failed"
	invalidState         = "invalid_state"
)

// refusal is why a token is not accepted, in words for its transmitter.
type refusal struct {
	code string
	err  error
}

func (r *refusal) Error() string { return r.code + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Errorf(format, args...)}
}

// verify accepts a security event token of this transmitter for us (RFC 8417;
// SSF 1.0 §10), or says why not. The payload is decoded once, strictly, and the
// signature has to cover the very bytes. The event is nil for a type of event
// that we do not know.
//
// An error that is no refusal says that nobody could tell: the transmitter's keys
// are not known.
func (t *transmitter) verify(ctx context.Context, raw string) (id string, e *event, err error) {
	header, claims, payload, err := jose.Parse(raw)
	if err != nil {
		return "", nil, refuse(invalidRequest, "%w", err)
	}
	if err := t.checkType(header, claims); err != nil {
		return "", nil, err
	}
	if iss, err := claims.Text("iss"); err != nil || iss != t.cfg.Issuer {
		return "", nil, refuse(invalidIssuer, "the token is from another issuer")
	}
	alg, kid, err := jose.CheckHeader(header, jose.Algorithms(), "secevent+jwt", "application/secevent+jwt")
	if err != nil {
		return "", nil, refuse(invalidKey, "%w", err)
	}
	keys, err := t.keys.Find(ctx, kid, alg)
	switch {
	case errors.Is(err, jose.ErrNoKeys):
		return "", nil, err
	case err != nil:
		return "", nil, refuse(invalidKey, "%w", err)
	}
	if err := jose.Verify(ctx, raw, payload, keys); err != nil {
		return "", nil, refuse(invalidKey, "%w", err)
	}
	if err := t.checkAudience(ctx, claims); err != nil {
		return "", nil, err
	}
	if id, err = t.checkClaims(claims); err != nil {
		return "", nil, refuse(invalidRequest, "%w", err)
	}
	if e, err = parseEvent(claims); err != nil {
		return id, nil, refuse(invalidRequest, "%w", err)
	}
	if e != nil {
		e.id = id
		if e.at.After(t.now().Add(skew)) {
			return id, nil, refuse(invalidRequest, "the event lies in the future")
		}
	}
	return id, e, nil
}

// checkType keeps other tokens from being taken for events, and events that
// could be taken for other tokens from being accepted.
func (t *transmitter) checkType(header, claims jose.Object) error {
	typ, err := header.Text("typ")
	if err != nil || strings.TrimPrefix(strings.ToLower(typ), "application/") != "secevent+jwt" {
		return refuse(invalidRequest, "a token of type %.40q is no security event", typ)
	}
	for _, claim := range []string{"sub", "exp", "nonce"} {
		if _, present := claims[claim]; present {
			return refuse(invalidRequest, "a security event has no %s", claim)
		}
	}
	return nil
}

func (t *transmitter) checkAudience(ctx context.Context, claims jose.Object) error {
	aud, err := claims.TextOrTexts("aud")
	if err != nil {
		return refuse(invalidAudience, "%w", err)
	}
	ours, err := t.audience(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(aud, func(a string) bool { return a != "" && slices.Contains(ours, a) }) {
		return refuse(invalidAudience, "the token is for another receiver")
	}
	return nil
}

func (t *transmitter) checkClaims(claims jose.Object) (id string, err error) {
	if id, err = claims.Text("jti"); err != nil || id == "" || len(id) > maxID {
		return "", errors.New("the token has no proper jti, so it could come twice")
	}
	iat, present, err := claims.Time("iat")
	now := t.now()
	switch {
	case err != nil || !present:
		return "", errors.Join(errors.New("the token does not say when it was made"), err)
	case iat.After(now.Add(skew)):
		return "", errors.New("the token was made in the future")
	case !now.Before(iat.Add(remembered)):
		return "", fmt.Errorf("the token is older than %d days", int(remembered.Hours()/24))
	}
	return id, nil
}
