package authn

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// A login in flight has two halves, and neither does anything without the other.
//
// The flow travels in the URL, sealed: what is to happen after the login. The
// pending half stays in the browser's cookie, sealed as well: the secrets that
// tie the answer to the browser that asked. So the cookie stays small however
// many tabs log in, Doorward remembers nothing (there is nothing to flood), and
// a browser that lost the cookie can still be brought back to where it was.
const (
	flowLife    = time.Hour // slow logins are normal: a reset password, a lost phone
	maxPending  = 5         // oldest dropped
	maxCookie   = 3500      // bytes, of the 4096 a browser keeps
	maxSealed   = 8 << 10   // bytes of anything sealed that comes back
	cookieLife  = 30 * 24 * time.Hour
	maxAttempts = 5 // per target and minute
	maxTargets  = 8
	loopWindow  = time.Minute
)

// The purposes of sealed values. A value sealed for one opens for no other.
const (
	forCookie   = "cookie"
	forProvider = "state"    // between us and a provider
	forHandover = "handover" // between an application's host and the login host
	forRefusal  = "refusal"  // from the login host to an application's host
	forLogout   = "logout"
)

// flow is the travelling half.
type flow struct {
	ID       string              `json:"i"`
	Started  int64               `json:"t"` // Unix seconds
	Provider string              `json:"p,omitempty"`
	Ask      access.LoginRequire `json:"a,omitzero"`
	// Return is where on this host the visitor was going, unless Pending holds it.
	Return string `json:"r,omitempty"`
	// Again marks the one silent second try.
	Again bool `json:"g,omitempty"`
	// On the login host: the application's origin and what it gave us to hand back.
	To        string `json:"o,omitempty"`
	Remote    string `json:"f,omitempty"`
	Challenge string `json:"c,omitempty"`
}

// pending is the half that stays in the browser.
type pending struct {
	ID       string `json:"i"`
	Started  int64  `json:"t"`
	Verifier string `json:"v"`           // PKCE, or the handover's
	Nonce    string `json:"n,omitempty"` // of the ID token
	Key      string `json:"k,omitempty"` // the tokens will be bound to, see proofKey
	// Return is kept here where it would make URLs too long.
	Return string `json:"r,omitempty"`
}

// attempt counts logins that began for one target, to notice a loop.
type attempt struct {
	Target string `json:"h"`
	Since  int64  `json:"t"`
	Count  int    `json:"n"`
}

// jar is what the cookie of logins in flight holds.
type jar struct {
	Pending  []pending `json:"p,omitempty"`
	Attempts []attempt `json:"a,omitempty"`
	// Forms are what was posted before a login, and is kept.
	Forms []keptForm `json:"f,omitempty"`
	// Last is the provider the visitor logged in with last. A choice that led to
	// no login does not count: a link on any other page can make it.
	Last string `json:"l,omitempty"`
}

// LoginCookieName returns the name of the cookie that holds logins in flight, on
// origins of a scheme. It is never for an upstream.
func LoginCookieName(scheme string) string { return CookieName(scheme) + "-login" }

// sealer keeps what leaves through a browser confidential and unchanged
// (AES-256-GCM). The purpose and the origin are part of the seal.
type sealer struct {
	aead cipher.AEAD
	rand io.Reader
}

func newSealer(key []byte, rand io.Reader) (*sealer, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("the key for logins in flight has %d bytes, not 32", len(key))
	}
	aead, err := newAEAD(key)
	return &sealer{aead, rand}, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *sealer) seal(value any, purpose, origin string) (string, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // six bytes for every & of a return address
	if err := enc.Encode(value); err != nil {
		return "", err
	}
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+text.Len()+s.aead.Overhead())
	if _, err := io.ReadFull(s.rand, nonce); err != nil {
		return "", fmt.Errorf("no randomness: %w", err)
	}
	sealed := s.aead.Seal(nonce, nonce, text.Bytes(), []byte(purpose+"\n"+origin))
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

var errUnsealed = errors.New("not sealed by us, or for something else")

func (s *sealer) open(text string, value any, purpose, origin string) error {
	if len(text) > maxSealed {
		return errUnsealed
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(sealed) < s.aead.NonceSize() {
		return errUnsealed
	}
	nonce, box := sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():]
	plain, err := s.aead.Open(nil, nonce, box, []byte(purpose+"\n"+origin))
	if err != nil {
		return errUnsealed
	}
	return json.Unmarshal(plain, value)
}

// token returns a fresh secret of n random bytes, base64url.
func (s *sealer) token(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return "", fmt.Errorf("no randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// openJar reads the cookie of logins in flight. A missing, foreign, damaged or
// outdated one is an empty jar: the worst that follows is a login that starts again.
func (a *Authenticator) openJar(r *http.Request, origin string) *jar {
	j := new(jar)
	text := soleCookie(r, LoginCookieName(schemeOf(origin)))
	if text == "" || a.seal.open(text, j, forCookie, origin) != nil {
		return new(jar)
	}
	now := a.now()
	j.Pending = slices.DeleteFunc(j.Pending, func(p pending) bool { return outdated(p.Started, now, flowLife) })
	j.Forms = slices.DeleteFunc(j.Forms, func(k keptForm) bool { return outdated(k.Since, now, keptLife) })
	j.Attempts = slices.DeleteFunc(j.Attempts, func(t attempt) bool { return outdated(t.Since, now, loopWindow) })
	return j
}

// closeJar writes the cookie. It drops the oldest logins until the rest fits.
func (a *Authenticator) closeJar(w http.ResponseWriter, origin string, j *jar) error {
	j.Pending = j.Pending[max(0, len(j.Pending)-maxPending):]
	j.Forms = j.Forms[max(0, len(j.Forms)-maxKept):]
	j.Attempts = j.Attempts[max(0, len(j.Attempts)-maxTargets):]
	for {
		text, err := a.seal.seal(j, forCookie, origin)
		if err != nil {
			return access.Because(access.InternalError, err)
		}
		if len(text) <= maxCookie || len(j.Pending) == 0 {
			setCookie(w, origin, LoginCookieName(schemeOf(origin)), text, cookieLife)
			return nil
		}
		j.Pending = j.Pending[1:]
	}
}

// take removes a login from the jar and returns it: each answer counts once.
func (j *jar) take(id string) (pending, bool) {
	i := slices.IndexFunc(j.Pending, func(p pending) bool { return p.ID == id })
	if i < 0 {
		return pending{}, false
	}
	p := j.Pending[i]
	j.Pending = slices.Delete(j.Pending, i, i+1)
	return p, true
}

// looping counts one more login for a target and reports whether there have been
// too many within a minute.
func (j *jar) looping(target string, now time.Time) bool {
	target = fingerprint(target)
	i := slices.IndexFunc(j.Attempts, func(t attempt) bool { return t.Target == target })
	if i < 0 {
		j.Attempts = append(j.Attempts, attempt{Target: target, Since: now.Unix(), Count: 1})
		return false
	}
	j.Attempts[i].Count++
	return j.Attempts[i].Count > maxAttempts
}

func outdated(since int64, now time.Time, life time.Duration) bool {
	age := now.Sub(time.Unix(since, 0))
	return age > life || age < -skew
}
