package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Names of the request headers that Doorward sets on every request it forwards.
const (
	AssertionHeader = "Doorward-Assertion"
	requestIDHeader = "X-Request-Id"
)

// prepare is station 7. It runs only for a request the policy allowed, and
// makes what the upstream will learn about the visitor.
func (p *passage) prepare() error {
	if err := p.recordable(); err != nil {
		return err
	}
	if p.upgrade && !p.mayUpgrade() {
		return access.Becausef(access.UpgradeRefused, "upgrade to %s on route %s",
			strconv.Quote(p.in.Header.Get("Upgrade")), p.entry.Route.ID)
	}
	if p.opensWebSocket() && !p.mayConnect() {
		return access.Becausef(access.OriginRefused, "a WebSocket of a page of %q on route %s",
			strings.Join(p.in.Header["Origin"], ", "), p.entry.Route.ID)
	}
	if p.req.Identity.Nobody() {
		return nil
	}
	p.groups = p.gen.Policy.Groups(p.entry.Route.ID, &p.req.Identity)
	audience := p.req.Origin()
	issuer := p.gen.issuer(audience)
	var err error
	if p.assertion, err = p.door.signer.assert(p.in.Context(), "", issuer, audience, p.req, p.groups); err != nil {
		return access.Because(access.InternalError, err)
	}
	if err := p.signTokens(issuer, audience); err != nil {
		return access.Because(access.InternalError, err)
	}
	return nil
}

// recordable refuses what could not be recorded, where that is required.
func (p *passage) recordable() error {
	if p.gen.AuditRequired {
		if err := p.door.recorder.Err(); err != nil {
			return access.Becausef(access.AuditUnavailable, "audit is required: %w", err)
		}
	}
	return nil
}

// outHeader sets the headers that only Doorward may set on the request to the
// upstream. It runs last, when nothing the visitor sent can remove them again.
func (p *passage) outHeader(h http.Header) {
	if cookies := h["Cookie"]; len(cookies) > 0 {
		if cookies = stripCookies(cookies); len(cookies) == 0 {
			delete(h, "Cookie")
		} else {
			h["Cookie"] = cookies
		}
	}
	if p.dec.Rule == access.PreflightRule {
		// It was let through as nobody's, so it goes as nobody's.
		delete(h, "Cookie")
		delete(h, "Authorization")
	}
	if p.req.Credential.Scheme != "" {
		// An access token for us is a secret of ours. The upstream gets the
		// assertion instead.
		delete(h, "Authorization")
		delete(h, "Dpop")
	}
	// One array for the values of all.
	own := setting{h, p.berth.room(5 + len(p.entry.headers))}
	own.set(AssertionHeader, p.assertion)
	for i := range p.entry.headers {
		p.entry.headers[i].tell(p, &own)
	}
	forwardedFor := ""
	if p.req.Network.IP.IsValid() {
		forwardedFor = p.req.Network.IP.String()
	}
	own.set("X-Forwarded-For", forwardedFor)
	own.set("X-Forwarded-Host", p.req.Host)
	own.set("X-Forwarded-Proto", p.req.Scheme)
	own.set(requestIDHeader, p.req.ID)
}

// setting puts values into a header, and keeps them in one array.
type setting struct {
	http.Header
	values []string
}

// set leaves a header with this one value, or without any.
func (s *setting) set(name, value string) {
	if value == "" {
		delete(s.Header, name)
		return
	}
	at := len(s.values)
	s.values = append(s.values, value)
	s.Header[name] = s.values[at : at+1 : at+1]
}

// headerRule is one entry of a route's `headers`.
type headerRule struct {
	name  string // canonical
	fact  string
	claim string // for the fact "claim"
	// prefix stands before a value, in presets only; token is the form of an
	// assertion, instead of a fact.
	prefix, token string
}

// facts are the words that `headers` may use, besides claim.NAME.
var facts = []string{"sub", "user", "email", "name", "username", "groups", "provider", "device"}

func newHeaderRule(name, value string) (headerRule, bool) {
	if claim, ok := strings.CutPrefix(value, "claim."); ok {
		return headerRule{name: name, fact: "claim", claim: claim}, claim != ""
	}
	return headerRule{name: name, fact: value}, slices.Contains(facts, value)
}

// maxHeaderValue is the longest value a fact may have. A longer one is left
// out, because half a list of groups is a wrong list.
const maxHeaderValue = 8 << 10

// value returns the fact in the form headers carry it, or the empty string.
func (h headerRule) value(req *access.Request, groups []string) string {
	id := &req.Identity
	if id.Nobody() {
		return ""
	}
	var value string
	switch h.fact {
	case "sub":
		value = headerText(id.Subject)
	case "user":
		value = headerText(id.User())
	case "email":
		value = headerText(id.Email)
	case "name":
		value = headerText(id.Name)
	case "username":
		value = headerText(id.Username)
	case "groups":
		value = headerList(groups)
	case "provider":
		value = headerText(id.Provider)
	case "device":
		value = headerText(req.Device.ProvenID())
	case "claim":
		value = claimText(id.Claims[h.claim])
	}
	if len(value) > maxHeaderValue {
		return ""
	}
	return value
}

// claimText writes a claim. Objects have no form a header could carry.
func claimText(claim any) string {
	switch v := claim.(type) {
	case string:
		return headerText(v)
	case bool, float64, int64, int, fmt.Stringer: // Stringer: json.Number
		return headerText(fmt.Sprint(v))
	case []string:
		return headerList(v)
	case []any:
		list := make([]string, 0, len(v))
		for _, item := range v {
			if s, ok := item.(string); ok {
				list = append(list, s)
			}
		}
		return headerList(list)
	}
	return ""
}

// headerList joins values by commas; a comma within a value is written %2C.
func headerList(values []string) string {
	list := make([]string, len(values))
	for i, value := range values {
		list[i] = strings.ReplaceAll(headerText(value), ",", "%2C")
	}
	return strings.Join(list, ",")
}

// headerText makes any string fit for a header: bytes outside printable ASCII,
// the percent sign, and blanks at either end are percent-encoded, so that the
// original can be had back exactly and no byte can end the header.
func headerText(s string) string {
	plain := true
	for i := range len(s) {
		if !headerByte(s, i) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; headerByte(s, i) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

func headerByte(s string, i int) bool {
	c := s[i]
	if c == ' ' {
		return i > 0 && i < len(s)-1
	}
	return c > ' ' && c < 0x7f && c != '%'
}
