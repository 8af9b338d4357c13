package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The values of `privacy`.
const privacyPseudonyms = "pseudonyms"

const defaultPseudonymPeriod = 30 * 24 * time.Hour

// Pseudonyms replace whatever tells who somebody is. A pseudonym is a keyed hash:
// without audit.key nobody can tell whose it is, or try names. Within a period the
// same person has the same pseudonym; what belongs to different periods cannot be
// joined.
type Pseudonyms struct {
	secret access.Secret
	period time.Duration

	mu   sync.Mutex
	keys map[int64][]byte // by period; the newest few
}

// NewPseudonyms returns the pseudonyms of a configuration, nil without audit.key.
func NewPseudonyms(cfg *Config) *Pseudonyms {
	if cfg.Key.IsZero() {
		return nil
	}
	return &Pseudonyms{secret: cfg.Key, period: cfg.PseudonymPeriod.Or(defaultPseudonymPeriod), keys: map[int64][]byte{}}
}

const pseudonymMark = "p-"

// of is the pseudonym of a value at a moment. kind keeps values apart that mean
// different things.
func (p *Pseudonyms) of(kind string, at time.Time, parts ...string) string {
	mac := hmac.New(sha256.New, p.key(at))
	for _, part := range append([]string{kind}, parts...) {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return pseudonymMark + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

func (p *Pseudonyms) subject(provider, subject string, at time.Time) string {
	return p.of("subject", at, provider, subject)
}

// key derives the key of a period. Periods are counted from the Unix epoch.
func (p *Pseudonyms) key(at time.Time) []byte {
	n := at.UnixNano() / int64(p.period)
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := p.keys[n]; key != nil {
		return key
	}
	if len(p.keys) > 64 {
		clear(p.keys)
	}
	key, err := derive(p.secret, fmt.Sprintf("audit pseudonyms %s %d", p.period, n), sha256.Size)
	if err != nil {
		panic(err) // only for lengths that HKDF does not have
	}
	p.keys[n] = key
	return key
}

// hide returns a copy of an event that tells nobody who it is about. What is left
// is listed in docs/audit.md. Deciding on it again may end differently, since what
// rules looked at is not in it.
func (p *Pseudonyms) hide(e *access.Event) *access.Event {
	hidden := *e
	hidden.Incomplete = e.Incomplete || e.Decision != nil
	hidden.Actor = p.actor(e)
	hidden.Why = ""
	switch e.Kind {
	case access.EventConfig, access.EventAudit, access.EventClosed: // are about nobody, or say how long
	default:
		hidden.Note = ""
	}
	if e.Request != nil {
		hidden.Request = p.request(e.Request, e.Time)
	}
	hidden.Decision = p.decision(e.Decision)
	if e.Candidate != nil {
		candidate := *e.Candidate
		candidate.Decision = *p.decision(&candidate.Decision)
		hidden.Candidate = &candidate
	}
	return &hidden
}

// actor is PROVIDER:SUB, or the name that somebody gave who administers.
func (p *Pseudonyms) actor(e *access.Event) string {
	if e.Actor == "" {
		return ""
	}
	if e.Kind == access.EventAdmin {
		return p.of("administrator", e.Time, e.Actor)
	}
	provider, subject, ok := strings.Cut(e.Actor, ":")
	switch {
	case !ok:
		return p.of("actor", e.Time, e.Actor)
	case subject == "":
		return e.Actor
	case e.Request != nil && e.Request.Identity.Kind == access.Service && e.Request.Identity.User() == e.Actor:
		return e.Actor
	}
	return provider + ":" + p.subject(provider, subject, e.Time)
}

func (p *Pseudonyms) request(was *access.Request, at time.Time) *access.Request {
	req := *was
	req.Query = ""
	req.Network.IP = coarse(was.Network.IP)
	if id := &req.Identity; !id.Nobody() && id.Kind == access.Person {
		id.Subject = p.subject(id.Provider, id.Subject, at)
		id.Email, id.Name, id.Username, id.Claims = "", "", "", nil
	} else if id.Kind == access.Service {
		id.Claims = nil
	}
	d := &req.Device
	if d.ID != "" {
		d.ID = p.of("device", at, d.ID)
	}
	d.Owner, d.Name, d.Reasons = "", "", nil
	d.Certificate = access.Certificate{NotAfter: d.Certificate.NotAfter}
	return &req
}

// naming are the conditions of rules that may name people.
var naming = []string{"users", "when", "unless"}

// decision leaves out the values that conditions were compared with, and whom a
// rule names.
func (p *Pseudonyms) decision(was *access.Decision) *access.Decision {
	if was == nil {
		return nil
	}
	dec := *was
	dec.Needs = slices.Clone(was.Needs)
	for i := range dec.Needs {
		dec.Needs[i].Got, dec.Needs[i].Details = "", nil
	}
	if was.Nearest != nil {
		nearest := *was.Nearest
		nearest.Missing = slices.Clone(nearest.Missing)
		for i := range nearest.Missing {
			nearest.Missing[i].Got = ""
			if slices.Contains(naming, nearest.Missing[i].Condition) {
				nearest.Missing[i].Want = ""
			}
		}
		dec.Nearest = &nearest
	}
	return &dec
}

// coarse is the network of an address: 24 bits of IPv4, 48 of IPv6.
func coarse(addr netip.Addr) netip.Addr {
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Addr{} // there is no address
	}
	return prefix.Addr()
}

// Who is somebody behind a pseudonym.
type Who struct {
	// Pseudonym is what was asked for, Kind what it stands for: a person or a device.
	Pseudonym string `json:"pseudonym"`
	Kind      string `json:"kind"`
	// Value is PROVIDER:SUB, or the id of the device.
	Value string `json:"value"`
	// Email and Name are as the last record has them.
	Email string `json:"email,omitempty"`
	Name  string `json:"name,omitempty"`
}

// Behind finds in files that have everything whose pseudonym it is. It returns nil
// if no record has them: they have never been here, or were erased.
func (p *Pseudonyms) Behind(pseudonym string, files *Files) (*Who, error) {
	_, mark, qualified := strings.Cut(pseudonym, ":"+pseudonymMark)
	if qualified {
		pseudonym = pseudonymMark + mark
	}
	if !strings.HasPrefix(pseudonym, pseudonymMark) {
		return nil, fmt.Errorf("%q is no pseudonym: they begin with %s", pseudonym, pseudonymMark)
	}
	var found *Who
	seen := map[string]bool{} // what was tried in a period
	for batch := range files.Batches() {
		for i := range batch.Lines {
			line := &batch.Lines[i]
			if err := unread(batch.File, line); err != nil {
				return nil, err
			}
			e := eventIn(line.Text)
			if e == nil {
				continue
			}
			if who := p.behind(pseudonym, e, seen); who != nil {
				found = who
			}
		}
	}
	return found, nil
}

func (p *Pseudonyms) behind(pseudonym string, e *access.Event, seen map[string]bool) *Who {
	try := func(kind, value string, is func() string) bool {
		key := fmt.Sprintf("%d %s %s", e.Time.UnixNano()/int64(p.period), kind, value)
		if _, known := seen[key]; !known {
			seen[key] = is() == pseudonym
		}
		return seen[key]
	}
	provider, subject, _ := strings.Cut(e.Actor, ":")
	if e.Actor != "" && e.Kind == access.EventAdmin {
		if try("administrator", e.Actor, func() string { return p.of("administrator", e.Time, e.Actor) }) {
			return &Who{Pseudonym: pseudonym, Kind: "administrator", Value: e.Actor}
		}
	} else if subject != "" && try("person", e.Actor, func() string { return p.subject(provider, subject, e.Time) }) {
		return &Who{Pseudonym: pseudonym, Kind: "person", Value: e.Actor}
	}
	if e.Request == nil {
		return nil
	}
	if id := &e.Request.Identity; !id.Nobody() && try("person", id.User(), func() string { return p.subject(id.Provider, id.Subject, e.Time) }) {
		return &Who{Pseudonym: pseudonym, Kind: "person", Value: id.User(), Email: id.Email, Name: id.Name}
	}
	if id := e.Request.Device.ID; id != "" && try("device", id, func() string { return p.of("device", e.Time, id) }) {
		return &Who{Pseudonym: pseudonym, Kind: "device", Value: id}
	}
	return nil
}
