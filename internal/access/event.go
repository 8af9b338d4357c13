package access

import "time"

// Event is one line of the audit log. Every request leaves exactly one of kind
// "decision", whatever happened to it.
type Event struct {
	Kind EventKind `json:"kind"`
	Time time.Time `json:"time"`

	// Request and Decision are the whole input and the whole verdict, for
	// decisions. Deciding again on Request gives Decision, unless Incomplete.
	Request  *Request  `json:"request,omitempty"`
	Decision *Decision `json:"decision,omitempty"`
	Response Response  `json:"response,omitzero"`
	// Candidate is what a candidate configuration would have decided, where that
	// differs. It was not enforced.
	Candidate *Candidate `json:"candidate,omitempty"`
	// Incomplete tells that something of the request is missing in the record:
	// what looked like a token was taken out of it, or claims that could not be
	// encoded. Deciding again may then end differently.
	Incomplete bool `json:"incomplete,omitempty"`

	// Reason, Actor and Note describe every other kind of event. Actor is
	// PROVIDER:SUB or empty, and for an admin action the name its sender gave;
	// Note is written by Doorward and holds no secret.
	Reason Reason `json:"reason,omitempty"`
	Actor  string `json:"actor,omitempty"`
	// Why is the reason an operator gave for an admin action, in their words.
	Why string `json:"why,omitempty"`
	// RequestID ties the event to the request it happened in.
	RequestID string `json:"request_id,omitempty"`
	// TraceID names the trace of a request that was followed (W3C Trace Context): 32
	// hexadecimal digits. It says nothing about what happened.
	TraceID string `json:"trace_id,omitempty"`
	// Session is the id of the session concerned.
	Session string `json:"session,omitempty"`
	Note    string `json:"note,omitempty"`

	// Chain ties the record to the one before it in the same log. It is set when
	// the line is written, and says nothing about what happened.
	Chain *Link `json:"chain,omitempty"`
}

// Clone returns a copy with a request and a decision of its own. What these point
// to is shared, because nothing changes it.
func (e *Event) Clone() *Event { return new(EventCopy).Of(e) }

// EventCopy is the memory of a copy, for whoever copies again and again.
type EventCopy struct {
	event    Event
	request  Request
	decision Decision
}

// Of is Event.Clone into this memory.
func (c *EventCopy) Of(e *Event) *Event {
	c.event = *e
	if e.Request != nil {
		c.request = *e.Request
		c.event.Request = &c.request
	}
	if e.Decision != nil {
		c.decision = *e.Decision
		c.event.Decision = &c.decision
	}
	return &c.event
}

// Link is the place of a record in the chain that makes a log tamper-evident.
// Package audit writes and verifies it.
type Link struct {
	// Seq counts the records of a chain from 1.
	Seq uint64 `json:"seq"`
	// Prev is the hash of the record before; empty where a chain begins.
	Prev string `json:"prev"`
	// Salt keeps what the record says from being guessed by its hash, where only
	// that is known.
	Salt string `json:"salt"`
	// Hash is that of the record that was here and was erased.
	Hash string `json:"hash,omitempty"`
	// Sig signs the record, and with it everything before it.
	Sig string `json:"sig,omitempty"`
}

// Candidate is the verdict of a configuration that is not in force.
type Candidate struct {
	// Route is the route that the candidate has for the request.
	Route    string   `json:"route,omitempty"`
	Decision Decision `json:"decision"`
}

// EventKind sorts events.
type EventKind string

// The kinds of events.
const (
	EventDecision EventKind = "decision"
	EventLogin    EventKind = "login"
	EventLogout   EventKind = "logout"
	EventSession  EventKind = "session" // refreshed, ended by the provider …
	EventConfig   EventKind = "config"
	EventSignal   EventKind = "signal" // a shared signal, and what became of it
	EventAdmin    EventKind = "admin"
	// EventClosed tells that an open request no longer passed and was ended. Request
	// and Decision are those that ended it, RequestID is that of the request.
	EventClosed EventKind = "closed"
	EventAudit  EventKind = "audit" // the log admits that events are missing
	// EventErased stands where a record was that was erased at the wish of the person
	// it was about. It says nothing but its place.
	EventErased EventKind = "erased"
)

// TLS is what was negotiated for a connection. It is zero without TLS, and where
// somebody else ends TLS.
type TLS struct {
	// Version is such as "TLS 1.3".
	Version string `json:"version,omitempty"`
	// Group is the key agreement, such as "X25519MLKEM768".
	Group string `json:"group,omitempty"`
}

// Response is what became of a request.
type Response struct {
	Status int `json:"status,omitempty"`
	// BytesIn and BytesOut count bodies, or both directions of an upgraded
	// connection.
	BytesIn  int64 `json:"bytes_in,omitempty"`
	BytesOut int64 `json:"bytes_out,omitempty"`
	// Duration is the whole time from the first byte of the request, in
	// nanoseconds; Decide is the part spent before the upstream was asked.
	Duration time.Duration `json:"duration_ns,omitempty"`
	Decide   time.Duration `json:"decide_ns,omitempty"`
	// Wait is the time from the moment the upstream was asked until the headers of
	// its answer were there, or until it was given up.
	Wait time.Duration `json:"wait_ns,omitempty"`
	// TLS is what the visitor's connection speaks.
	TLS TLS `json:"tls,omitzero"`
	// Upstream is the address the request was sent to.
	Upstream string `json:"upstream,omitempty"`
	// Reason tells why the response is Doorward's own although the request was
	// allowed, such as UpstreamUnreachable.
	Reason Reason `json:"reason,omitempty"`
}
