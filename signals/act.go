package signals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
)

const (
	// slack is by how much a login may be younger than an event that ends it: the
	// clocks of two parties differ. A login made after the event stays.
	slack = 5 * time.Second
	// spellLength is the time that max_sessions is counted over.
	spellLength = 10 * time.Minute
)

// spell is how many logins an event ended or lowered, and when.
type spell struct {
	at time.Time
	n  int
}

// outcome is what became of an event.
type outcome struct {
	reason access.Reason
	note   string
}

func ignored(format string, args ...any) outcome {
	return outcome{access.SignalIgnored, fmt.Sprintf(format, args...)}
}

// carryOut does what an event asks for. It may be done twice: everything it does
// leads to the same end. An error means that it has to be tried again.
func (r *Receiver) carryOut(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	if member, yes := t.critical(&e.subject); yes {
		return ignored("the subject has a part %q that we cannot interpret and must not leave out", member), nil
	}
	does := t.cfg.choice(e.kind)
	switch does {
	case ignore:
		return ignored("it leads to nothing here"), nil
	case byCredential:
		return r.credential(ctx, t, e)
	case byRisk:
		return r.risk(ctx, t, e)
	case reportDevice:
		return r.device(ctx, t, e)
	case amendClaims:
		return r.eachLogin(ctx, t, e, "got other claims", func(info *access.SessionInfo) (bool, error) {
			return r.opts.Sessions.Amend(ctx, info.ID, func(id *access.Identity) bool {
				return r.opts.Claims != nil && r.opts.Claims(id, e.fields["claims"].(map[string]any))
			}, t.by(e))
		})
	case lowerAssurance:
		return r.assurance(ctx, t, e)
	case reauthenticate:
		return r.reauthenticate(ctx, t, e)
	case end:
		return r.end(ctx, t, e)
	}
	return ignored("it leads to nothing here"), nil
}

// by is on whose behalf a session ends or changes, for the audit log.
func (t *transmitter) by(e *event) string {
	by := e.name + " of " + t.cfg.ID
	if e.why != "" {
		by += fmt.Sprintf(" (%q)", e.why)
	}
	return by
}

// end ends the logins concerned. What no login stands for, such as a token that
// was issued before, is revoked besides, unless the event is held.
func (r *Receiver) end(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	list, more, err := r.concerned(ctx, t, e)
	if err != nil {
		return outcome{}, err
	}
	if out, held := t.hold(e, len(list), more); held {
		return out, nil
	}
	revoked, revokeErr := r.revoke(ctx, t, e)
	out, err := t.toEach(list, "ended", func(info *access.SessionInfo) (bool, error) {
		n, err := r.opts.Sessions.Revoke(ctx, session.Match{LoginID: info.ID}, access.SessionEnded, t.by(e))
		return n > 0, err
	})
	if revoked != "" && out.reason == access.SignalIgnored {
		out = outcome{access.SignalApplied, revoked}
	}
	return out, errors.Join(revokeErr, err)
}

// revoke makes whatever was issued before the event count no more, for a person
// or a device as a whole.
func (r *Receiver) revoke(ctx context.Context, t *transmitter, e *event) (note string, err error) {
	s := &e.subject
	if r.opts.Revoke == nil || len(s.session) > 0 || len(s.user) > 0 && len(s.device) > 0 {
		return "", nil // a single session, or the sessions of one device: no more than that
	}
	for _, n := range s.user {
		for issuer, provider := range t.issuers {
			if n.email || n.issuer != "" && n.issuer != issuer {
				continue
			}
			who := access.Revocation{Issuer: issuer, Subject: n.value, User: provider + ":" + n.value, At: e.at, By: t.cfg.ID, Why: t.by(e)}
			if _, err := r.opts.Revoke(ctx, who); err != nil {
				return "", err
			}
			note = "what was issued before counts no more"
		}
	}
	for _, n := range s.device {
		for issuer := range t.issuers {
			if _, err := r.opts.Revoke(ctx, access.Revocation{Device: n.value, Issuer: issuer, At: e.at, By: t.cfg.ID, Why: t.by(e)}); err != nil {
				return "", err
			}
		}
		note = "what was issued before counts no more on that device"
	}
	return note, nil
}

func (r *Receiver) reauthenticate(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	return r.eachLogin(ctx, t, e, "count as no login where one is asked for", func(info *access.SessionInfo) (bool, error) {
		return r.opts.Sessions.Amend(ctx, info.ID, forgetLogin, t.by(e))
	})
}

func forgetLogin(id *access.Identity) bool {
	had := !id.Login.Time.IsZero() || id.Login.ACR != "" || len(id.Login.AMR)+len(id.Login.Levels) > 0
	id.Login = access.Login{}
	return had
}

// credential is for a credential that changed: whoever holds it should show that
// they still do, and a certificate that was withdrawn identifies nothing.
func (r *Receiver) credential(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	if e.text("change_type") == "create" {
		return ignored("a new credential changes nothing for logins"), nil
	}
	if serial := e.text("x509_serial"); e.text("credential_type") == "x509" && serial != "" && t.cfg.Devices {
		if out, held := t.hold(e, 1, false); held {
			return out, nil
		}
		if err := r.reports.certificate(ctx, serial, e.text("x509_issuer"), e.at, t.by(e)); err != nil {
			return outcome{}, err
		}
		t.spend(1)
	}
	return r.reauthenticate(ctx, t, e)
}

// risk is for the level of risk of somebody or something.
func (r *Receiver) risk(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	level := e.text("current_level")
	if len(e.subject.device) > 0 && len(e.subject.user)+len(e.subject.session) == 0 {
		return r.device(ctx, t, e)
	}
	switch level {
	case "HIGH":
		return r.end(ctx, t, e)
	case "MEDIUM":
		return r.reauthenticate(ctx, t, e)
	}
	return ignored("a low risk changes nothing"), nil
}

// device notes what was said of devices. It narrows what the inventory says and
// is forgotten when the inventory has heard of the device later.
func (r *Receiver) device(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	if len(e.subject.device) == 0 {
		return ignored("it names no device"), nil
	}
	if len(e.subject.device) > 0 && !t.cfg.Devices {
		return ignored("the transmitter may not report devices (devices: true)"), nil
	}
	says := report{At: e.at, By: t.by(e), From: t.cfg.ID}
	switch {
	case e.uri() == caep+"device-compliance-change":
		says.Compliant = access.TriOf(e.text("current_status") == "compliant")
	default:
		says.Risk = map[string]access.Risk{"LOW": access.RiskLow, "MEDIUM": access.RiskMedium, "HIGH": access.RiskHigh}[e.text("current_level")]
	}
	if out, held := t.hold(e, len(e.subject.device), false); held {
		return out, nil
	}
	var names []string
	for _, n := range e.subject.device {
		changed, err := r.reports.say(ctx, n.value, says)
		if err != nil {
			return outcome{}, err
		}
		if changed {
			names = append(names, n.value)
		}
	}
	if len(names) == 0 {
		return ignored("something later is known already"), nil
	}
	t.spend(len(names))
	return outcome{access.SignalApplied, "noted for device " + strings.Join(names, ", ")}, nil
}

// levels are the assurance levels of the vocabularies in use, in ours.
var levels = map[string]map[string]string{
	"NIST-AAL": {"nist-aal1": "aal1", "nist-aal2": "aal2", "nist-aal3": "phrh"},
}

// assurance lowers what a login is worth. It never raises it: for that the person
// has to log in.
func (r *Receiver) assurance(ctx context.Context, t *transmitter, e *event) (outcome, error) {
	if e.text("change_direction") == "increase" {
		return ignored("only a login raises the assurance"), nil
	}
	level := levels[e.text("namespace")][strings.ToLower(e.text("current_level"))]
	if level == "" {
		return r.reauthenticate(ctx, t, e) // whatever it is, it is less than before
	}
	keep := access.LevelsUpTo(level)
	return r.eachLogin(ctx, t, e, "are worth less", func(info *access.SessionInfo) (bool, error) {
		return r.opts.Sessions.Amend(ctx, info.ID, func(id *access.Identity) bool {
			kept := slices.DeleteFunc(slices.Clone(id.Login.Levels), func(l string) bool {
				return !slices.Contains(keep, l)
			})
			if len(kept) == len(id.Login.Levels) {
				return false
			}
			// Classes and methods may say what the level denies.
			id.Login.Levels, id.Login.ACR, id.Login.AMR = kept, "", nil
			return true
		}, t.by(e))
	})
}

// eachLogin does something to every login that an event is about, within what
// the transmitter may do at once.
func (r *Receiver) eachLogin(ctx context.Context, t *transmitter, e *event, done string, do func(*access.SessionInfo) (bool, error)) (outcome, error) {
	list, more, err := r.concerned(ctx, t, e)
	if err != nil {
		return outcome{}, err
	}
	if out, held := t.hold(e, len(list), more); held {
		return out, nil
	}
	return t.toEach(list, done, do)
}

// hold reports whether an event is about so many logins that nothing of it may be
// carried out.
func (t *transmitter) hold(e *event, logins int, more bool) (outcome, bool) {
	if !more && (logins == 0 || t.within(logins)) {
		return outcome{}, false
	}
	t.log.Error("an event would end or lower more than max_sessions allows; nothing was done",
		"event", e.name, "concerned", logins, "more", more, "limit", t.cfg.maxSessions(),
		"cure", "if it is right, run doorward revoke, or raise max_sessions")
	return outcome{access.SignalHeld, fmt.Sprintf("%d logins or devices, or more, are concerned, too many at once", logins)}, true
}

// toEach does something to every login of a list, and counts it.
func (t *transmitter) toEach(list []access.SessionInfo, done string, do func(*access.SessionInfo) (bool, error)) (_ outcome, err error) {
	if len(list) == 0 {
		return ignored("it concerns no login that is alive"), nil
	}
	n := 0
	for i := range list {
		changed, doErr := do(&list[i])
		err = errors.Join(err, doErr)
		if changed {
			n++
		}
	}
	t.spend(n)
	return outcome{access.SignalApplied, fmt.Sprintf("%d logins %s", n, done)}, err
}

// within reports whether so many more logins may be ended or lowered now.
func (t *transmitter) within(n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := t.now().Add(-spellLength)
	t.recent = slices.DeleteFunc(t.recent, func(s spell) bool { return s.at.Before(since) })
	for _, s := range t.recent {
		n += s.n
	}
	return n <= t.cfg.maxSessions()
}

func (t *transmitter) spend(n int) {
	if n == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recent = append(t.recent, spell{t.now(), n})
}

// concerned lists the logins that an event is about. more tells that there are
// others, beyond what may be touched at once.
func (r *Receiver) concerned(ctx context.Context, t *transmitter, e *event) (list []access.SessionInfo, more bool, err error) {
	seen := map[string]bool{}
	for _, match := range t.matches(&e.subject) {
		// Without an issuer all logins are looked through, and most are not meant.
		limit := t.cfg.maxSessions() + 1
		if match == (session.Match{}) {
			limit = maxScan
		}
		found, rest, err := r.opts.Sessions.List(ctx, match, limit)
		if err != nil {
			return nil, false, err
		}
		more = more || rest
		for i := range found {
			if info := &found[i]; !seen[info.ID] && t.concerns(&e.subject, info) && !info.Created.After(e.at.Add(slack)) {
				seen[info.ID] = true
				list = append(list, *info)
			}
		}
	}
	return list, more, nil
}

// maxScan is how many logins are looked through for one event. It is more than
// one installation has.
const maxScan = 5_000_000

// matches selects what may be meant: the narrowest that the subject gives.
func (t *transmitter) matches(s *subject) (list []session.Match) {
	add := func(n name, match func(issuer string) session.Match) {
		for issuer := range t.issuers {
			if n.issuer == "" || n.issuer == issuer {
				list = append(list, match(issuer))
			}
		}
	}
	switch {
	case len(s.session) > 0:
		for _, n := range s.session {
			add(n, func(issuer string) session.Match { return session.Match{Issuer: issuer, SID: n.value} })
		}
	case slices.ContainsFunc(s.user, func(n name) bool { return n.email }):
		return []session.Match{{}}
	case len(s.user) > 0:
		for _, n := range s.user {
			add(n, func(issuer string) session.Match { return session.Match{Issuer: issuer, Subject: n.value} })
		}
	case s.tenant:
		return []session.Match{{}}
	}
	return list
}

// concerns reports whether a login is one that the subject means: one of an issuer
// that the transmitter speaks for, and of the person, if one is named, whichever
// of the issuer's clients it was made at.
func (t *transmitter) concerns(s *subject, info *access.SessionInfo) bool {
	if _, ours := t.issuers[info.Issuer]; !ours {
		return false
	}
	if len(s.user) == 0 {
		return true
	}
	return slices.ContainsFunc(s.user, func(n name) bool {
		switch {
		case n.email: // only an address that the provider vouches for is anybody's
			return info.EmailVerified && strings.EqualFold(n.value, info.Email)
		case n.issuer != "" && n.issuer != info.Issuer:
			return false
		}
		return info.Provider+":"+n.value == info.User
	})
}
