package proxy

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/fetch"
	"github.com/doorward/doorward/internal/store"
)

const (
	// assertionLifetime is how long an upstream may rely on one assertion.
	assertionLifetime = 5 * time.Minute
	// keyPeriod is how long one key signs. The key of the next period is
	// published a whole period ahead, that of the last one period longer, so
	// that upstreams which cache the key set always know the key in use.
	keyPeriod = 24 * time.Hour
	// keyRetry is the pause after the store could not be asked for keys.
	keyRetry = time.Minute
	// assertionCache is how many assertions are kept for reuse, besides the one that
	// is kept with each session: for access tokens, and for further routes. One that
	// is signed anew costs as much as all else that is done for a request.
	assertionCache = 64 << 10
)

// SignerOptions are what a Signer is made of. Store and Key are required.
type SignerOptions struct {
	// Store keeps the keys, so that replicas and restarts share them.
	Store store.Store
	// Key is 32 secret bytes that seal the private keys in the store.
	Key []byte
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Signer tells upstreams who the visitor is, in a way they can check: a JWT
// (RFC 7519) signed with ES256. Keys change by themselves.
type Signer struct {
	store store.Store
	seal  cipher.AEAD
	now   func() time.Time

	ring    atomic.Pointer[keyring]
	mu      sync.Mutex // guards loading
	retryAt time.Time

	seed  maphash.Seed
	cache *lru.Cache[uint64, *signed] // by the hash of an assertionKey and the person
	last  atomic.Pointer[common]      // of the one that was signed last
}

// keyring holds the keys of three periods: the last, the current, the next.
type keyring struct {
	period int64
	keys   map[int64]*signingKey
	jwks   []byte
}

type signingKey struct {
	private *ecdsa.PrivateKey
	public  jwk
}

// jwk is a public key as RFC 7517 and RFC 7518 §6.2 write it. The first four
// members, in this order, are the input of its thumbprint (RFC 7638 §3.2).
type jwk struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
	Y     string `json:"y"`
	ID    string `json:"kid,omitempty"`
	Use   string `json:"use,omitempty"`
	Alg   string `json:"alg,omitempty"`
}

// NewSigner loads the keys from the store, or makes them.
func NewSigner(ctx context.Context, opts SignerOptions) (*Signer, error) {
	if len(opts.Key) != 32 {
		return nil, fmt.Errorf("assertion keys: the sealing key has %d bytes, not 32", len(opts.Key))
	}
	block, err := aes.NewCipher(opts.Key)
	if err != nil {
		return nil, err
	}
	s := &Signer{store: opts.Store, now: opts.Now, seed: maphash.MakeSeed()}
	if s.now == nil {
		s.now = time.Now
	}
	if s.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, err
	}
	if s.cache, err = lru.New[uint64, *signed](assertionCache); err != nil {
		return nil, err
	}
	_, err = s.keys(ctx, s.now())
	return s, err
}

// JWKS returns the key set (RFC 7517 §5) that verifies assertions.
func (s *Signer) JWKS(ctx context.Context) ([]byte, error) {
	ring, err := s.keys(ctx, s.now())
	if err != nil {
		return nil, err
	}
	return ring.jwks, nil
}

// keys returns a keyring that can sign now. The store is asked once a period;
// while it does not answer, the key published for this period serves.
func (s *Signer) keys(ctx context.Context, now time.Time) (*keyring, error) {
	period := now.Unix() / int64(keyPeriod/time.Second)
	ring := s.ring.Load()
	if ring != nil && ring.period == period {
		return ring, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ring = s.ring.Load(); ring != nil && ring.period == period {
		return ring, nil
	}
	usable := ring != nil && ring.keys[period] != nil
	if usable && now.Before(s.retryAt) {
		return ring, nil
	}
	next, err := s.load(ctx, period)
	if err != nil {
		s.retryAt = now.Add(keyRetry)
		if usable {
			return ring, nil
		}
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	s.ring.Store(next)
	return next, nil
}

func (s *Signer) load(ctx context.Context, period int64) (*keyring, error) {
	ring := &keyring{period: period, keys: map[int64]*signingKey{}}
	for _, at := range []int64{period - 1, period, period + 1} {
		key, err := s.loadKey(ctx, at, at >= period)
		switch {
		case at < period && errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			ring.keys[at] = key
		}
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, at := range slices.Sorted(maps.Keys(ring.keys)) {
		set.Keys = append(set.Keys, ring.keys[at].public)
	}
	var err error
	ring.jwks, err = json.Marshal(set)
	return ring, err
}

// loadKey reads the key of a period and makes it if it has none. Of replicas
// that make one at the same time, compare-and-swap lets one win.
func (s *Signer) loadKey(ctx context.Context, period int64, create bool) (*signingKey, error) {
	name := "assertion-key/" + strconv.FormatInt(period, 10)
	for range 3 {
		item, err := s.store.Get(ctx, name)
		if err == nil {
			if key, err := s.open(name, item.Value); err == nil || !create {
				return key, err
			}
			// Sealed by a key that has been replaced: nobody can use it again.
		} else if !errors.Is(err, store.ErrNotFound) || !create {
			return nil, err
		}
		key, sealed, err := s.generate(name)
		if err != nil {
			return nil, err
		}
		_, err = s.store.Put(ctx, store.Item{Key: name, Value: sealed, Version: item.Version,
			Expires: time.Unix((period+2)*int64(keyPeriod/time.Second), 0)})
		if !errors.Is(err, store.ErrConflict) {
			return key, err
		}
	}
	return nil, store.ErrConflict
}

func (s *Signer) generate(name string) (*signingKey, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	key, err := newSigningKey(private)
	return key, s.seal.Seal(nil, nil, der, []byte(name)), err
}

func (s *Signer) open(name string, sealed []byte) (*signingKey, error) {
	der, err := s.seal.Open(nil, nil, sealed, []byte(name))
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", name, parsed)
	}
	return newSigningKey(private)
}

func newSigningKey(private *ecdsa.PrivateKey) (*signingKey, error) {
	point, err := private.PublicKey.Bytes() // 4, X, Y (SEC 1 §2.3.3)
	if err != nil {
		return nil, err
	}
	half := len(point) / 2
	public := jwk{Curve: "P-256", Type: "EC", X: base64url(point[1 : 1+half]), Y: base64url(point[1+half:])}
	input, err := json.Marshal(public)
	if err != nil {
		return nil, err
	}
	thumbprint := sha256.Sum256(input)
	public.ID, public.Use, public.Alg = base64url(thumbprint[:]), "sig", jwt.SigningMethodES256.Alg()
	return &signingKey{private, public}, nil
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// claims is what an assertion says. Subject is PROVIDER:SUB, because two
// providers may hand out the same sub and an upstream sees one issuer only.
type claims struct {
	Issuer        string      `json:"iss"`
	Audience      string      `json:"aud"`
	Subject       string      `json:"sub"`
	IssuedAt      int64       `json:"iat"`
	Expires       int64       `json:"exp"`
	Provider      string      `json:"idp"`
	Email         string      `json:"email,omitempty"`
	EmailVerified bool        `json:"email_verified,omitempty"`
	Name          string      `json:"name,omitempty"`
	Username      string      `json:"preferred_username,omitempty"`
	Groups        []string    `json:"groups,omitempty"`
	ACR           string      `json:"acr,omitempty"`
	AMR           []string    `json:"amr,omitempty"`
	AuthTime      int64       `json:"auth_time,omitempty"`
	ClientID      string      `json:"client_id,omitempty"`
	Scope         string      `json:"scope,omitempty"`
	Device        deviceClaim `json:"device,omitzero"`
}

type deviceClaim struct {
	ID string `json:"id"`
}

// assertedAlike reports whether an assertion says the same of two identities.
func assertedAlike(a, b *access.Identity) bool {
	return a.Subject == b.Subject && a.Provider == b.Provider && a.Email == b.Email && a.EmailVerified == b.EmailVerified &&
		a.Name == b.Name && a.Username == b.Username && a.Login.ACR == b.Login.ACR && slices.Equal(a.Login.AMR, b.Login.AMR) &&
		a.Login.Time.Equal(b.Login.Time) && a.ClientID == b.ClientID && slices.Equal(a.Scopes, b.Scopes)
}

// assertionKey finds an assertion again, by its hash: two that share one take
// turns. Whether it may be used is decided by comparing the key and everything
// that the assertion says, so that no input can be missing.
type assertionKey struct{ form, session, issuer, audience, route, device string }

type signed struct {
	by     *Signer
	key    assertionKey
	of     *access.Identity // which nobody changes
	groups []string
	// end is that of the session or access token it was made for, in nanoseconds
	// since 1970; 0 if it has none.
	end             int64
	issued, expires int64 // in seconds
	token           string
}

// assert returns the assertion for a request that was allowed. One is signed
// per session and route and used until half its life is over. It never outlives
// the session or the access token. The form is that of a preset; "" is Doorward's
// own.
func (s *Signer) assert(ctx context.Context, form, issuer, audience string, req *access.Request, groups []string) (string, error) {
	id := &req.Identity
	want := signed{by: s, of: id, groups: groups, key: assertionKey{form, req.Session.ID, issuer, audience, req.Route, req.Device.ProvenID()}}
	end := req.Session.Expires
	if end.IsZero() {
		end = req.Credential.Expires
	}
	if !end.IsZero() {
		want.end = end.UnixNano()
	}
	now := req.Time.Unix()
	// Most sessions are of one application with one route. What those need is with
	// the session: looking for it costs no search, and it goes when the session does.
	kept := req.Session.Kept
	var near *signed
	if kept != nil {
		near, _ = kept.Assertion.Load().(*signed)
		if near != nil && near.serves(&want, now) {
			fetch.Text(near.token) // it will be copied
			return near.token, nil
		}
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	maphash.WriteComparable(&h, want.key)
	h.WriteString(id.Provider)
	h.WriteByte(0)
	h.WriteString(id.Subject)
	hash := h.Sum64()
	if have, ok := s.cache.Get(hash); ok && have.serves(&want, now) {
		return have.token, nil
	}
	want.issued, want.expires = now, now+int64(assertionLifetime/time.Second)
	if !end.IsZero() {
		want.expires = min(want.expires, end.Unix())
	}
	var err error
	if want.token, err = s.sign(ctx, req.Time, want.claims().form(form)); err != nil {
		return "", err
	}
	// It stays longer than the request, and has most in common with the others.
	if last := s.last.Load(); last == nil || !want.share(last) {
		want.groups = slices.Clone(groups)
	}
	if kept != nil && assertedAlike(kept.Of, id) {
		want.of = kept.Of
	} else {
		who := *id
		who.Login.AMR, who.Scopes = slices.Clone(id.Login.AMR), slices.Clone(id.Scopes)
		want.of = &who
	}
	made := new(signed)
	*made = want
	s.last.Store(&common{want.key.issuer, want.key.audience, want.groups})
	if kept != nil && (near == nil || near.key == want.key || !near.fresh(now)) {
		kept.Assertion.Store(made)
	} else {
		s.cache.Add(hash, made)
	}
	return made.token, nil
}

// common is what many assertions say.
type common struct {
	issuer, audience string
	groups           []string
}

// share takes from others what they have in common, and reports whether the groups
// are part of that.
func (s *signed) share(c *common) bool {
	if s.key.issuer == c.issuer {
		s.key.issuer = c.issuer
	}
	if s.key.audience == c.audience {
		s.key.audience = c.audience
	}
	if !slices.Equal(s.groups, c.groups) {
		return false
	}
	s.groups = c.groups
	return true
}

// serves reports whether an assertion can be used for what another one would say
// now.
func (s *signed) serves(want *signed, now int64) bool {
	return s.by == want.by && s.fresh(now) && s.end == want.end && s.key == want.key && assertedAlike(s.of, want.of) && slices.Equal(s.groups, want.groups)
}

func (s *signed) fresh(now int64) bool {
	return now >= s.issued && now-s.issued < (s.expires-s.issued+1)/2
}

// claims returns what the assertion says.
func (s *signed) claims() *claims {
	id := s.of
	c := &claims{Issuer: s.key.issuer, Audience: s.key.audience, Subject: id.User(), IssuedAt: s.issued, Expires: s.expires, Provider: id.Provider,
		Email: id.Email, EmailVerified: id.EmailVerified, Name: id.Name, Username: id.Username,
		Groups: s.groups, ACR: id.Login.ACR, AMR: id.Login.AMR, ClientID: id.ClientID, Scope: strings.Join(id.Scopes, " "),
		Device: deviceClaim{s.key.device}}
	if at := id.Login.Time; !at.IsZero() {
		c.AuthTime = at.Unix()
	}
	return c
}

func (s *Signer) sign(ctx context.Context, now time.Time, c any) (string, error) {
	ring, err := s.keys(ctx, now)
	if err != nil {
		return "", err
	}
	// A request that began just before a change of keys may sign just after it.
	key := cmp.Or(ring.keys[now.Unix()/int64(keyPeriod/time.Second)], ring.keys[ring.period])
	header, err := json.Marshal(struct {
		Alg  string `json:"alg"`
		Type string `json:"typ"`
		ID   string `json:"kid"`
	}{jwt.SigningMethodES256.Alg(), "JWT", key.public.ID})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	input := base64url(header) + "." + base64url(payload)
	signature, err := jwt.SigningMethodES256.Sign(input, key.private)
	if err != nil {
		return "", err
	}
	return input + "." + base64url(signature), nil
}
