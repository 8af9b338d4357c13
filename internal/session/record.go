package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// The folders of the store.
const (
	loginPrefix  = "login/"
	ticketPrefix = "ticket/"
	codePrefix   = "code/"
	userPrefix   = "user/"
	sidPrefix    = "sid/"
)

// The bounds of one login. Groups and claims are copied into every audit event
// and checked by every rule, so an identity has to stay small.
const (
	maxClaims   = 32 << 10
	maxIdentity = 256 << 10
	maxTokens   = 128 << 10
	// maxTickets is how many origins one login may be handed over to; the oldest
	// ticket gives way.
	maxTickets = 128
)

// errDamaged tells that a record cannot be used, though the store returned it.
// Such a session is refused; logging in again replaces it.
var errDamaged = errors.New("the record is damaged")

// loginRecord is the stored form of a login.
type loginRecord struct {
	Identity access.Identity `json:"identity"`
	// SID is the provider's name for its session (`sid`), for its logout.
	SID     string    `json:"sid,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Used is the last use some time ago; see persistEvery.
	Used time.Time `json:"used"`
	// Tokens are the provider's tokens, sealed with the data key.
	Tokens []byte `json:"tokens,omitempty"`
	// Issued and Due are when the access token was issued and when it ends; both
	// are zero if the identity is not refreshed.
	Issued time.Time `json:"issued,omitzero"`
	Due    time.Time `json:"due,omitzero"`
	// Renewal counts changes of the tokens. A refresh that comes back to another
	// count than it started from is about tokens that are gone.
	Renewal uint64 `json:"renewal,omitempty"`
	// Lease is until when some replica is redeeming the refresh token.
	Lease time.Time `json:"lease,omitzero"`
	// Root is the hash of the ticket the login was started with, Tickets are the
	// hashes of the others, oldest first.
	Root    string   `json:"root"`
	Tickets []string `json:"tickets,omitempty"`
}

// ticketRecord is the stored form of a ticket. It never changes.
type ticketRecord struct {
	Login  string `json:"login"`
	Origin string `json:"origin"`
	// Root marks the ticket a login was started with. Only it can be handed over
	// to other origins, so that the stolen cookie of one application opens no
	// other.
	Root bool `json:"root,omitempty"`
	// Key is the login's data key, sealed under the cookie.
	Key []byte `json:"key"`
}

// storedTicket is a ticket as the store has it.
type storedTicket struct {
	ticketRecord
	hash string
}

// dataKey opens the data key with the cookie's secret.
func (t *storedTicket) dataKey(secret string) ([]byte, error) {
	return openUnder(secret, forTicket, t.Key, t.place(t.hash))
}

// codeRecord is the stored form of a hand-over code.
type codeRecord struct {
	Login     string `json:"login"`
	Origin    string `json:"origin"`
	Challenge string `json:"challenge"`
	Key       []byte `json:"key"` // the data key, sealed under the code
}

// tokenRecord is what is sealed in loginRecord.Tokens.
type tokenRecord struct {
	Refresh string `json:"refresh,omitempty"`
	Key     string `json:"key,omitempty"`
	ID      string `json:"id,omitempty"`
}

// place binds a sealed data key to the ticket it belongs to and to everything
// else the ticket says.
func (r *ticketRecord) place(hash string) string {
	return fmt.Sprintf("%s%s %q %q %t", ticketPrefix, hash, r.Login, r.Origin, r.Root)
}

func (r *codeRecord) place(hash string) string {
	return fmt.Sprintf("%s%s %q %q %q", codePrefix, hash, r.Login, r.Origin, r.Challenge)
}

func (t tokenRecord) seal(dataKey []byte, id string) ([]byte, error) {
	if t == (tokenRecord{}) {
		return nil, nil
	}
	if n := len(t.Refresh) + len(t.Key) + len(t.ID); n > maxTokens {
		return nil, fmt.Errorf("the provider's tokens have %d bytes, more than %d: have it send smaller ones", n, maxTokens)
	}
	plain, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return seal(dataKey, plain, loginPrefix+id)
}

func openTokens(dataKey, sealed []byte, id string) (t tokenRecord, err error) {
	if len(sealed) == 0 {
		return t, nil
	}
	plain, err := open(dataKey, sealed, loginPrefix+id)
	if err != nil {
		return t, err
	}
	return t, decode(plain, &t)
}

// setTokens seals new tokens into the record. Where the provider sent no new
// refresh or ID token, before says which ones still hold.
func (r *loginRecord) setTokens(dataKey []byte, id string, fresh Tokens, before tokenRecord, now time.Time) (err error) {
	t := tokenRecord{Refresh: fresh.Refresh, Key: fresh.Key, ID: fresh.ID}
	if t.Refresh == "" {
		t.Refresh, t.Key = before.Refresh, before.Key // a token without its key is worth nothing
	}
	if t.ID == "" {
		t.ID = before.ID
	}
	if r.Tokens, err = t.seal(dataKey, id); err != nil {
		return err
	}
	r.Issued, r.Due = now, fresh.Expires
	if t.Refresh == "" || r.Due.IsZero() {
		r.Issued, r.Due = time.Time{}, time.Time{}
	}
	r.Renewal++
	r.Lease = time.Time{}
	return nil
}

// allTickets returns the hashes of all tickets of the login.
func (r *loginRecord) allTickets() []string { return append(slices.Clone(r.Tickets), r.Root) }

// samePerson compares what a person is: issuer and subject.
func samePerson(a, b *access.Identity) bool {
	return a.Issuer == b.Issuer && a.Subject == b.Subject
}

// settle returns the identity as it will be after a restart, so that decisions
// before and after it are the same. It refuses one that is too large rather
// than dropping what a deny rule may ask for.
func settle(id *access.Identity) (settled access.Identity, err error) {
	if id.Nobody() {
		return settled, errors.New("an identity needs provider, issuer and subject")
	}
	claims, err := json.Marshal(id.Claims)
	if err != nil {
		return settled, fmt.Errorf("the claims cannot be kept: %w", err)
	}
	if len(claims) > maxClaims {
		return settled, fmt.Errorf("the claims of provider %q have %d bytes, more than %d: have it send fewer claims", id.Provider, len(claims), maxClaims)
	}
	whole, err := json.Marshal(id)
	if err != nil {
		return settled, fmt.Errorf("the identity cannot be kept: %w", err)
	}
	if len(whole) > maxIdentity {
		return settled, fmt.Errorf("the identity from provider %q has %d bytes, more than %d: have it send fewer groups", id.Provider, len(whole), maxIdentity)
	}
	err = json.Unmarshal(whole, &settled)
	settled.Normalize()
	return settled, err
}

// decode reads a record.
func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		// Without the decoder's own words, which may quote the record.
		return fmt.Errorf("%w: it is not the JSON it should be", errDamaged)
	}
	return nil
}

// damaged reports whether one record is unusable while the store works.
func damaged(err error) bool { return errors.Is(err, errDamaged) || errors.Is(err, store.ErrCorrupt) }

// readLogin reads a login and its version. The error is store.ErrNotFound when
// there is none.
func (m *Manager) readLogin(ctx context.Context, id string) (*loginRecord, uint64, error) {
	rec, item, err := m.readItem(ctx, id)
	return rec, item.Version, err
}

// readItem is readLogin, with the item that the login is kept as.
func (m *Manager) readItem(ctx context.Context, id string) (*loginRecord, store.Item, error) {
	item, err := m.store.Get(ctx, loginPrefix+id)
	if err != nil {
		return nil, store.Item{}, err
	}
	rec := new(loginRecord)
	if err := decode(item.Value, rec); err != nil {
		return nil, item, err
	}
	if rec.Identity.Nobody() || rec.Created.IsZero() || rec.Expires.IsZero() {
		return nil, item, fmt.Errorf("%w: it names nobody", errDamaged)
	}
	return rec, item, nil
}

// putRecord writes a record that has to be at version now.
func (m *Manager) putRecord(ctx context.Context, key string, rec any, version uint64, expires time.Time) (uint64, error) {
	value, err := json.Marshal(rec)
	if err != nil {
		return 0, err
	}
	return m.store.Put(ctx, store.Item{Key: key, Value: value, Version: version, Expires: expires})
}

// keepAfter is how much longer than a login its records are kept, so that a
// visitor who comes late is told that the session has expired.
const keepAfter = time.Hour

// indexKeys are the index entries that lead to a login.
func (r *loginRecord) indexKeys(id string) []string {
	keys := []string{indexPrefix(userPrefix, r.Identity.Issuer, r.Identity.Subject) + id}
	if r.SID != "" {
		keys = append(keys, indexPrefix(sidPrefix, r.Identity.Issuer, r.SID)+id)
	}
	return keys
}

// indexPrefix is the folder of one pair. It is a hash because the parts are the
// provider's and may be long or contain anything.
func indexPrefix(folder, issuer, name string) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(issuer))))
	h.Write([]byte(issuer))
	h.Write([]byte(name))
	return folder + encoding.EncodeToString(h.Sum(nil)) + "/"
}

// putIndex makes a login findable.
func (m *Manager) putIndex(ctx context.Context, id string, rec *loginRecord) func() error {
	return func() error {
		for _, key := range rec.indexKeys(id) {
			item := store.Item{Key: key, Version: store.Any, Expires: rec.Expires.Add(keepAfter)}
			if _, err := m.store.Put(ctx, item); err != nil {
				return err
			}
		}
		return nil
	}
}
