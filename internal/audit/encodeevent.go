package audit

import (
	"strconv"

	"github.com/doorward/doorward/internal/access"
)

// The members stand in the order of their fields in package access, with what
// the tags there say about empty ones. A test compares with encoding/json, field
// by field. Where there is a beginning, the groups stand in it, and first comes what
// it has opened: the identity, then the request.

func (e *encoder) event(v *access.Event) {
	e.kept = groupsOf(v.Request)
	begun := e.kept.begin != nil
	if begun {
		e.request(v.Request)
	} else {
		e.open()
	}
	e.text("kind", string(v.Kind))
	e.time("time", v.Time)
	if v.Request != nil && !begun {
		e.key("request")
		e.request(v.Request)
	}
	if v.Decision != nil {
		e.key("decision")
		e.decision(v.Decision)
	}
	if v.Response != (access.Response{}) {
		e.key("response")
		e.response(&v.Response)
	}
	if v.Candidate != nil {
		e.key("candidate")
		e.open()
		e.someText("route", v.Candidate.Route)
		e.key("decision")
		e.decision(&v.Candidate.Decision)
		e.shut()
	}
	e.someTruth("incomplete", v.Incomplete)
	e.someText("reason", string(v.Reason))
	e.someText("actor", v.Actor)
	e.someText("why", v.Why)
	e.someText("request_id", v.RequestID)
	e.someText("trace_id", v.TraceID)
	e.someText("session", v.Session)
	e.someText("note", v.Note)
	if v.Chain != nil {
		e.key("chain")
		e.link(v.Chain)
	}
	e.shut()
}

func (e *encoder) link(v *access.Link) {
	e.open()
	e.key("seq")
	e.to = strconv.AppendUint(e.to, v.Seq, 10)
	e.text("prev", v.Prev)
	e.text("salt", v.Salt)
	e.someText("hash", v.Hash)
	e.someText("sig", v.Sig)
	e.shut()
}

func (e *encoder) request(v *access.Request) {
	begun := e.kept.begin != nil
	if begun {
		e.identity(&v.Identity)
	} else {
		e.open()
	}
	e.text("id", v.ID)
	e.time("time", v.Time)
	e.someText("door", string(v.Door))
	e.text("method", v.Method)
	e.text("scheme", v.Scheme)
	e.text("host", v.Host)
	e.text("path", v.Path)
	e.someTexts("ambiguous", v.Ambiguous)
	e.someText("query", v.Query)
	e.someTruth("preflight", v.Preflight)
	e.someText("route", v.Route)
	if v.Network != (access.Network{}) {
		e.key("network")
		e.open()
		e.someAddr("ip", v.Network.IP)
		e.shut()
	}
	if !begun && (!v.Identity.Nobody() || !zeroIdentity(&v.Identity)) {
		e.key("identity")
		e.identity(&v.Identity)
	}
	if v.Session != (access.Session{}) {
		e.key("session")
		e.open()
		e.someText("id", v.Session.ID)
		e.someTime("created", v.Session.Created)
		e.someTime("expires", v.Session.Expires)
		e.shut()
	}
	if v.Device.ID != "" || !zeroDevice(&v.Device) {
		e.key("device")
		e.device(&v.Device)
	}
	if v.Credential != (access.Credential{}) {
		e.key("credential")
		e.open()
		e.someText("scheme", v.Credential.Scheme)
		e.someTime("issued", v.Credential.Issued)
		e.someTime("expires", v.Credential.Expires)
		e.someText("problem", string(v.Credential.Problem))
		e.shut()
	}
	e.someText("fault", string(v.Fault))
	e.shut()
}

func (e *encoder) identity(v *access.Identity) {
	begun := e.kept.begin != nil
	if begun {
		e.to = append(e.to, ']') // the list ends, with which the beginning did
	} else {
		e.open()
	}
	e.someText("kind", string(v.Kind))
	e.someText("provider", v.Provider)
	e.someText("iss", v.Issuer)
	e.someText("sub", v.Subject)
	e.someText("email", v.Email)
	e.someTruth("email_verified", v.EmailVerified)
	e.someText("name", v.Name)
	e.someText("username", v.Username)
	if !begun {
		e.groups(v.Groups)
	}
	e.someTruth("groups_incomplete", v.GroupsIncomplete)
	e.someClaims("claims", v.Claims)
	if login := &v.Login; !zeroLogin(login) {
		e.key("login")
		e.open()
		e.someTime("auth_time", login.Time)
		e.someText("acr", login.ACR)
		e.someTexts("amr", login.AMR)
		e.someTexts("levels", login.Levels)
		e.shut()
	}
	e.someText("client_id", v.ClientID)
	e.someTexts("scopes", v.Scopes)
	e.someText("service_account", v.ServiceAccount)
	e.someText("spiffe", v.SPIFFE)
	e.shut()
}

// groups writes the groups of a person: as they were written before, where they
// are kept with the session.
func (e *encoder) groups(list []string) {
	if e.kept.list == "" {
		e.someTexts("groups", list)
		return
	}
	e.key("groups")
	e.clean[0] = len(e.to)
	e.add(e.kept.list)
	e.clean[1] = len(e.to)
}

func (e *encoder) device(v *access.Device) {
	e.open()
	e.someText("id", v.ID)
	e.someText("matched_by", v.MatchedBy)
	e.someText("source", v.Source)
	e.text("known", v.Known.String())
	e.text("managed", v.Managed.String())
	e.text("compliant", v.Compliant.String())
	e.text("disk_encrypted", v.DiskEncrypted.String())
	e.text("jailbroken", v.Jailbroken.String())
	e.text("risk", v.Risk.String())
	e.someFact("by_certificate", v.ByCertificate)
	e.someFact("by_claim", v.ByClaim)
	e.someFact("owned", v.Owned)
	e.someText("os", v.OS)
	e.someText("os_version", v.OSVersion)
	e.someText("owner", v.Owner)
	e.someText("name", v.Name)
	e.someTexts("reasons", v.Reasons)
	e.someTime("non_compliant_since", v.NonCompliantSince)
	e.someTime("grace_until", v.GraceUntil)
	e.someTime("seen_at", v.SeenAt)
	e.someTime("observed_at", v.ObservedAt)
	e.someTime("source_failing_since", v.SourceFailingSince)
	e.someText("source_failing", v.SourceFailing)
	e.someText("problem", string(v.Problem))
	if cert := &v.Certificate; cert.Serial != "" || !zeroCertificate(cert) {
		e.key("certificate")
		e.open()
		e.someText("serial", cert.Serial)
		e.someText("issuer", cert.Issuer)
		e.someText("subject", cert.Subject)
		e.someTexts("sans", cert.SANs)
		e.someTime("not_after", cert.NotAfter)
		e.someText("fingerprint", cert.Fingerprint)
		e.shut()
	}
	e.shut()
}

func (e *encoder) someFact(name string, value access.Tri) {
	if value != access.Unknown {
		e.text(name, value.String())
	}
}

func (e *encoder) decision(v *access.Decision) {
	e.open()
	e.text("outcome", v.Outcome.String())
	e.someText("reason", string(v.Reason))
	e.someText("policy", v.Policy)
	e.someText("rule", v.Rule)
	e.someText("tier", v.Tier)
	e.someText("message", v.Message)
	if len(v.Needs) > 0 {
		e.key("needs")
		list(e, v.Needs, e.need)
	}
	if v.Nearest != nil {
		e.key("nearest")
		e.nearest(v.Nearest)
	}
	if len(v.Shadow) > 0 {
		e.key("shadow")
		list(e, v.Shadow, e.shadow)
	}
	e.shut()
}

func (e *encoder) shadow(v *access.Shadow) {
	e.open()
	e.text("rule", v.Rule)
	e.text("outcome", v.Outcome.String())
	e.someText("reason", string(v.Reason))
	e.shut()
}

func (e *encoder) need(v *access.Need) {
	e.open()
	e.text("reason", string(v.Reason))
	e.someText("profile", v.Profile)
	if ask := &v.Login; !ask.IsZero() {
		e.key("login")
		e.open()
		e.someTexts("acr", ask.ACR)
		e.someTruth("phishing_resistant", ask.PhishingResistant)
		e.someTexts("amr", ask.AMR)
		if ask.MaxAge != 0 {
			e.text("max_age", ask.MaxAge.String())
		}
		e.shut()
	}
	e.someText("want", v.Want)
	e.someText("got", v.Got)
	e.someText("fix", v.Fix)
	e.someText("source", v.Source)
	e.someTime("since", v.Since)
	e.someTime("read", v.Read)
	e.someTime("began", v.Began)
	e.someTexts("details", v.Details)
	e.shut()
}

func (e *encoder) nearest(v *access.NearMiss) {
	e.open()
	e.text("rule", v.Rule)
	e.key("missing")
	if v.Missing == nil {
		e.add("null")
	} else {
		list(e, v.Missing, e.miss)
	}
	e.shut()
}

func (e *encoder) miss(v *access.Miss) {
	e.open()
	e.text("condition", v.Condition)
	e.someText("want", v.Want)
	e.someText("got", v.Got)
	e.someTruth("unknown", v.Unknown)
	e.shut()
}

// list writes an array of objects.
func list[T any](e *encoder, values []T, one func(*T)) {
	e.to = append(e.to, '[')
	for i := range values {
		e.next()
		one(&values[i])
	}
	e.to = append(e.to, ']')
}

func (e *encoder) response(v *access.Response) {
	e.open()
	e.someNumber("status", int64(v.Status))
	e.someNumber("bytes_in", v.BytesIn)
	e.someNumber("bytes_out", v.BytesOut)
	e.someNumber("duration_ns", int64(v.Duration))
	e.someNumber("decide_ns", int64(v.Decide))
	e.someNumber("wait_ns", int64(v.Wait))
	if v.TLS != (access.TLS{}) {
		e.key("tls")
		e.open()
		e.someText("version", v.TLS.Version)
		e.someText("group", v.TLS.Group)
		e.shut()
	}
	e.someText("upstream", v.Upstream)
	e.someText("reason", string(v.Reason))
	e.shut()
}
