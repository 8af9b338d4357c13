package signals

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

// The families of event types.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	ssf  = "https://schemas.openid.net/secevent/ssf/event-type/"
)

// action is what an event leads to.
type action string

// The actions. The first three can be chosen in the configuration.
const (
	// end ends the logins concerned, with everything that is open.
	end action = "end"
	// reauthenticate makes the logins concerned count as no login at all where
	// one is asked for; what asks for none goes on.
	reauthenticate action = "reauthenticate"
	ignore         action = "ignore"

	amendClaims     action = "amend claims"
	lowerAssurance  action = "lower assurance"
	reportDevice    action = "report device"
	byRisk          action = "act by risk"
	byCredential    action = "act by credential"
	answerHandshake action = "answer handshake"
)

// role is what a simple subject names.
type role uint8

const (
	aUser role = iota
	aDevice
	aStream
	byPrincipal
)

// kind is a type of event that we know.
type kind struct {
	family, name string
	names        role
	does         action
}

func (k *kind) uri() string { return k.family + k.name }

// kinds are all event types of CAEP 1.0, RISC 1.0 and SSF 1.0. Others are
// accepted and ignored, as the specifications want it.
var kinds = []kind{
	{caep, "session-revoked", aUser, end},
	{caep, "token-claims-change", aUser, amendClaims},
	{caep, "credential-change", aUser, byCredential},
	{caep, "assurance-level-change", aUser, lowerAssurance},
	{caep, "device-compliance-change", aDevice, reportDevice},
	{caep, "risk-level-change", byPrincipal, byRisk},
	{caep, "session-established", aUser, ignore},
	{caep, "session-presented", aUser, ignore},

	{risc, "account-disabled", aUser, end},
	{risc, "account-purged", aUser, end},
	{risc, "sessions-revoked", aUser, end},
	{risc, "credential-compromise", aUser, end},
	{risc, "identifier-recycled", aUser, end},
	{risc, "account-credential-change-required", aUser, reauthenticate},
	{risc, "identifier-changed", aUser, reauthenticate},
	{risc, "recovery-activated", aUser, reauthenticate},
	{risc, "recovery-information-changed", aUser, ignore},
	{risc, "account-enabled", aUser, ignore},
	{risc, "opt-in", aUser, ignore},
	{risc, "opt-out-initiated", aUser, ignore},
	{risc, "opt-out-cancelled", aUser, ignore},
	{risc, "opt-out-effective", aUser, ignore},

	{ssf, "verification", aStream, answerHandshake},
	{ssf, "stream-updated", aStream, answerHandshake},
}

// kindOf finds a type by its address.
func kindOf(uri string) *kind {
	for i := range kinds {
		if kinds[i].uri() == uri {
			return &kinds[i]
		}
	}
	return nil
}

// kindNames are the names that the configuration may use.
func kindNames() []string {
	var names []string
	for i := range kinds {
		if kinds[i].family != ssf {
			names = append(names, kinds[i].name)
		}
	}
	return names
}

// event is a verified security event.
type event struct {
	id string // jti
	*kind
	// at is when it happened, issued when the token was made.
	at, issued time.Time
	subject    subject
	// stream is the id of the stream that a handshake is about.
	stream string
	fields jose.Object
	// why is what the transmitter's administrators are told, cleaned for a log.
	why string
}

// parseEvent reads what a SET says. It returns nil for an event of a type we do
// not know.
func parseEvent(claims jose.Object) (*event, error) {
	events, ok := claims["events"].(map[string]any)
	if !ok || len(events) != 1 { // CAEP interoperability profile: exactly one
		return nil, errors.New("the token is not about exactly one event")
	}
	for uri, value := range events {
		fields, ok := value.(map[string]any)
		if !ok {
			return nil, errors.New("the event is not an object")
		}
		known := kindOf(uri)
		if known == nil {
			return nil, nil
		}
		e := &event{kind: known, fields: fields}
		return e, e.parse(claims)
	}
	return nil, nil
}

func (e *event) parse(claims jose.Object) (err error) {
	if e.issued, _, err = claims.Time("iat"); err != nil {
		return err
	}
	at, present, err := e.fields.Time("event_timestamp")
	if err != nil {
		return err
	}
	if e.at = e.issued; present {
		e.at = at
	}
	about, ok := claims["sub_id"].(map[string]any)
	if !ok {
		return errors.New("the token names no subject (sub_id)")
	}
	if e.subject, err = parseSubject(about); err != nil {
		return err
	}
	e.why = reasonText(e.fields)
	simple := e.subject.simple
	e.subject.simple = nil
	names := e.names
	if names == byPrincipal {
		if names, err = e.principal(); err != nil {
			return err
		}
	}
	switch names {
	case aStream:
		if len(simple) != 1 {
			return errors.New("the token is not about a stream")
		}
		e.stream = simple[0].value
	case aDevice:
		e.subject.device = append(e.subject.device, simple...)
	default:
		e.subject.user = append(e.subject.user, simple...)
	}
	return e.check()
}

// principal says whom a risk level is about.
func (e *event) principal() (role, error) {
	principal, err := member(e.fields, "principal")
	if err != nil {
		return 0, err
	}
	switch principal {
	case "DEVICE":
		return aDevice, nil
	case "USER", "SESSION":
		return aUser, nil
	}
	return aUser, nil // TENANT, GROUP …: the subject says so itself
}

// check wants the members that the type requires, with values that it knows.
func (e *event) check() (err error) {
	oneOf := func(key string, values ...string) {
		value, problem := member(e.fields, key)
		if problem == nil && len(values) > 0 && !slices.Contains(values, value) {
			problem = fmt.Errorf("%s is %.40q, not one of %s", key, value, strings.Join(values, ", "))
		}
		err = errors.Join(err, problem)
	}
	switch e.uri() {
	case caep + "token-claims-change":
		if claims, ok := e.fields["claims"].(map[string]any); !ok || len(claims) == 0 {
			err = errors.New("the event names no claims")
		}
	case caep + "credential-change":
		oneOf("credential_type")
		oneOf("change_type", "create", "revoke", "update", "delete")
	case caep + "assurance-level-change":
		oneOf("namespace")
		oneOf("current_level")
	case caep + "device-compliance-change":
		oneOf("current_status", "compliant", "not-compliant")
	case caep + "risk-level-change":
		oneOf("current_level", "LOW", "MEDIUM", "HIGH")
	case risc + "credential-compromise":
		oneOf("credential_type")
	case ssf + "stream-updated":
		oneOf("status", "enabled", "paused", "disabled")
	}
	return err
}

// text returns a member of the event, "" if it is missing or something else.
func (e *event) text(key string) string {
	value, _ := e.fields.Text(key)
	return value
}

// maxReason is how much of a reason is kept, in bytes.
const maxReason = 200

// reasonText returns reason_admin in English, or else in any language, without
// what a terminal or a log would obey.
func reasonText(fields jose.Object) string {
	texts, _ := fields["reason_admin"].(map[string]any)
	text, ok := texts["en"].(string)
	if !ok {
		for _, tag := range slices.Sorted(maps.Keys(texts)) {
			if text, ok = texts[tag].(string); ok {
				break
			}
		}
	}
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, text)
}
