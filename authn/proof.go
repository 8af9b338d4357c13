package authn

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
)

// binding names the key that a token may only be used with. It is empty for a
// bearer token.
type binding struct {
	certificate string // cnf.x5t#S256 (RFC 8705 §3.1)
	key         string // cnf.jkt (RFC 9449 §6)
}

// parseBinding reads the confirmation of a token (RFC 7800). One we cannot check
// is an error: a bound token must not become a bearer token.
func parseBinding(claims jose.Object) (b binding, err error) {
	value, present := claims["cnf"]
	if !present {
		return b, nil
	}
	cnf, ok := value.(map[string]any)
	if !ok {
		return b, errors.New("cnf is not an object")
	}
	for name := range cnf {
		if name != "x5t#S256" && name != "jkt" {
			return b, fmt.Errorf("the token is bound by %.40q, which is not understood", name)
		}
	}
	for name, to := range map[string]*string{"x5t#S256": &b.certificate, "jkt": &b.key} {
		if _, present := cnf[name]; !present {
			continue
		}
		if *to, err = jose.Object(cnf).Text(name); err != nil || len(*to) != base64.RawURLEncoding.EncodedLen(sha256.Size) {
			return b, fmt.Errorf("cnf.%s is not a SHA-256 hash", name)
		}
	}
	if b == (binding{}) {
		return b, errors.New("the token is bound to nothing in particular")
	}
	return b, nil
}

// held checks that whoever sends a token has the key it is bound to: that of the
// client certificate of this connection, that of a DPoP proof, or both.
func (t *tokens) held(r *http.Request, req *access.Request, raw string, b *binding) error {
	if b.certificate != "" {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return access.Becausef(access.TokenBindingMismatch, "the token is bound to a client certificate, and the connection has none")
		}
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		if !sameText(b.certificate, base64.RawURLEncoding.EncodeToString(sum[:])) {
			return access.Becausef(access.TokenBindingMismatch, "the token is bound to another client certificate")
		}
	}
	dpop := req.Credential.Scheme == schemeDPoP
	switch {
	case b.key == "" && dpop:
		return access.Becausef(access.TokenBindingMismatch, "the token is not bound to a key, yet it was sent with DPoP")
	case b.key == "":
		return nil
	case !dpop: // RFC 9449 §7.2
		return access.Becausef(access.TokenBindingMismatch, "the token is bound to a key, yet it was sent as a bearer token")
	}
	proof, err := parseProof(r.Context(), r.Header["Dpop"])
	if err == nil {
		err = proof.fits(req, raw, t.now())
	}
	if err != nil {
		return access.Because(access.ProofInvalid, err)
	}
	if !sameText(b.key, proof.thumbprint) {
		return access.Becausef(access.TokenBindingMismatch, "the token is bound to another key")
	}
	return t.proofs.spend(r.Context(), proof)
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

const (
	maxProof    = 8 << 10
	maxProofID  = 256
	proofLife   = time.Minute      // how old a proof may be
	proofSlack  = 30 * time.Second // how far ahead the sender's clock may be
	maxSpent    = 64 << 10         // proofs remembered
	maxSpentKey = 4 << 10          // of one key
)

// proof is a DPoP proof whose signature is right.
type proof struct {
	thumbprint string // of its key (RFC 7638)
	claims     jose.Object
	id         string
	issued     time.Time
}

// parseProof makes the checks 1 to 7 of RFC 9449 §4.3: everything about the proof
// itself.
func parseProof(ctx context.Context, values []string) (*proof, error) {
	if len(values) != 1 {
		return nil, fmt.Errorf("%d DPoP headers", len(values))
	}
	raw := values[0]
	if len(raw) > maxProof {
		return nil, fmt.Errorf("a proof of %d bytes", len(raw))
	}
	header, claims, payload, err := jose.Parse(raw)
	if err != nil {
		return nil, err
	}
	if typ, err := header.Text("typ"); err != nil || !strings.EqualFold(typ, "dpop+jwt") {
		return nil, errors.New("the DPoP header holds a token of another type")
	}
	jwk, _ := header["jwk"].(map[string]any)
	plain := jose.Object{"alg": header["alg"]}
	for _, name := range []string{"crit", "b64", "jku", "x5u", "zip", "enc"} {
		if value, present := header[name]; present {
			plain[name] = value
		}
	}
	alg, _, err := jose.CheckHeader(plain, jose.Algorithms())
	if err != nil {
		return nil, err
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, present := jwk[private]; present {
			return nil, errors.New("the proof holds a private key")
		}
	}
	key, err := jose.ParseKey(jwk)
	if err != nil {
		return nil, err
	}
	if !key.Serves(alg) {
		return nil, fmt.Errorf("the proof's key does not sign with %s", alg)
	}
	if err := jose.Verify(ctx, raw, payload, []crypto.PublicKey{key.Public}); err != nil {
		return nil, fmt.Errorf("the proof: %w", err)
	}
	p := &proof{claims: claims}
	public, err := newPublicJWK(key.Public)
	if err != nil {
		return nil, err
	}
	p.thumbprint = public.thumbprint()
	if p.id, err = claims.Text("jti"); err != nil || p.id == "" || len(p.id) > maxProofID {
		return nil, errors.New("the proof has no proper jti")
	}
	issued, present, err := claims.Time("iat")
	if err != nil || !present {
		return nil, errors.New("the proof does not say when it was made")
	}
	p.issued = issued
	return p, nil
}

// fits makes the checks 8 to 12 of RFC 9449 §4.3: that the proof is for this
// request, now, with this token. We hand out no nonces, so none is asked for.
func (p *proof) fits(req *access.Request, raw string, now time.Time) error {
	if method, err := p.claims.Text("htm"); err != nil || method != req.Method {
		return fmt.Errorf("the proof is for the method %.20q", method)
	}
	if address, err := p.claims.Text("htu"); err != nil || !sameAddress(address, req) {
		return fmt.Errorf("the proof is for %.200q", address)
	}
	if now.Sub(p.issued) > proofLife || p.issued.Sub(now) > proofSlack {
		return fmt.Errorf("the proof was made at %s", p.issued.Format(time.RFC3339))
	}
	if hash, err := p.claims.Text("ath"); err != nil || !sameText(hash, tokenHash(raw)) {
		return errors.New("the proof is for another token")
	}
	return nil
}

// sameAddress compares htu with the address the visitor used, which is what
// Doorward received, not what it sends to an upstream. Scheme and host compare
// without case and default port; query and fragment do not count.
func sameAddress(address string, req *access.Request) bool {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Host == "" {
		return false
	}
	scheme := strings.ToLower(u.Scheme)
	host := strings.TrimSuffix(strings.ToLower(u.Host), map[string]string{"http": ":80", "https": ":443"}[scheme])
	path := u.Path
	if path == "" {
		path = "/"
	}
	return scheme+"://"+host == req.Origin() && path == req.Path
}

// proofs remembers the proofs that were used: in memory, within bounds for all
// keys and for each, and in the store for the other replicas. What cannot be
// remembered is refused.
type proofs struct {
	now  func() time.Time
	once func(ctx context.Context, issuer, name string, until time.Time, do func() error) error

	mu    sync.Mutex
	spent map[[2]string]time.Time // key and jti to when it may be forgotten
	count map[string]int          // by key
}

// spend uses a proof up.
func (p *proofs) spend(ctx context.Context, one *proof) error {
	until := one.issued.Add(proofLife + proofSlack)
	if err := p.note(one, until); err != nil {
		return access.Because(access.ProofInvalid, err)
	}
	err := p.once(ctx, "dpop "+one.thumbprint, one.id, until, func() error { return nil })
	switch {
	case errors.Is(err, session.ErrRepeated):
		return access.Becausef(access.ProofInvalid, "the proof was used before")
	case err != nil:
		return access.Because(access.StoreUnavailable, err)
	}
	return nil
}

func (p *proofs) note(one *proof, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spent == nil {
		p.spent, p.count = map[[2]string]time.Time{}, map[string]int{}
	}
	name := [2]string{one.thumbprint, one.id}
	if end, used := p.spent[name]; used && p.now().Before(end) {
		return errors.New("the proof was used before")
	}
	if len(p.spent) >= maxSpent || p.count[one.thumbprint] >= maxSpentKey {
		p.forget()
	}
	if len(p.spent) >= maxSpent || p.count[one.thumbprint] >= maxSpentKey {
		return errors.New("more proofs than can be remembered")
	}
	if _, again := p.spent[name]; !again {
		p.count[one.thumbprint]++
	}
	p.spent[name] = until
	return nil
}

// forget drops what has ended.
func (p *proofs) forget() {
	now := p.now()
	for name, end := range p.spent {
		if now.Before(end) {
			continue
		}
		delete(p.spent, name)
		if p.count[name[0]]--; p.count[name[0]] == 0 {
			delete(p.count, name[0])
		}
	}
}
