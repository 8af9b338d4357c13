package access

import (
	"net/netip"
	"time"
)

// Prefix is the path prefix Doorward keeps for itself on every host. No route
// may overlap it.
const Prefix = "/.doorward/"

// The addresses below Prefix.
const (
	LoginPath        = Prefix + "login"
	CallbackPath     = Prefix + "callback"
	LogoutPath       = Prefix + "logout"
	ReplayPath       = Prefix + "replay"              // send a kept form again
	BackChannelPath  = Prefix + "backchannel-logout"  // OpenID Connect Back-Channel Logout §2.5
	SignalsPath      = Prefix + "signals"             // pushed security events, RFC 8935
	FrontChannelPath = Prefix + "frontchannel-logout" // OpenID Connect Front-Channel Logout §2
	ClientKeysPath   = Prefix + "client-jwks.json"    // our keys as a client, for providers
	KeysPath         = Prefix + "jwks.json"           // our keys as the issuer of assertions
	RecheckPath      = Prefix + "recheck"             // have the inventories asked about one's device now
	MePath           = Prefix + "me"
	PortalPath       = Prefix + "portal"  // what one may open, one's sessions and device
	AuthPath         = Prefix + "auth"    // where front ends ask, on a listener of their own
	AuthInPlacePath  = AuthPath + "/ext"  // those that repeat the address behind a prefix
	TunnelsPath      = Prefix + "tunnels" // which tunnels one may open
)

// HiddenValue stands in a recorded query for what looked like a token. Rules
// cannot know what it was. The blank keeps a visitor from sending it.
const HiddenValue = "[redacted token]"

// Door is the way a request came in.
type Door string

// The doors. The zero value belongs to none.
const (
	Standalone  Door = "standalone"
	ForwardAuth Door = "forward-auth"
	ExtAuthz    Door = "ext-authz"
	SPOE        Door = "spoe"
	Tunnel      Door = "tunnel"
)

// Request is the whole input of one decision: whatever is not in it, no rule
// can look at, and the audit record holds all of it. Deciding on a Request read
// back from the log gives the same Decision.
type Request struct {
	// ID is the request id, also sent to the upstream and shown on refusal pages.
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Door Door      `json:"door,omitempty"`

	Method string `json:"method"` // CONNECT for a tunnel, however it was asked for
	Scheme string `json:"scheme"` // http, https, ws, wss or tcp
	// Host is lower-case and without the scheme's default port.
	Host string `json:"host"`
	// Path is the one canonical path that is matched, decided on and forwarded.
	// For a tunnel it is /.
	Path string `json:"path"`
	// Ambiguous names the spellings in the path on which servers disagree, in the
	// words of a route's ambiguous_paths. The route permits each, or the request
	// is refused.
	Ambiguous []string `json:"ambiguous,omitempty"`
	// Query is the raw query. The values of parameters that carry secrets
	// (tokens, codes, passwords) are replaced before any rule sees them, so
	// that nothing has to be removed from the record.
	Query string `json:"query,omitempty"`

	// Preflight tells that a browser asks, without credentials, what it may send
	// to another site (Fetch standard, "CORS-preflight fetch").
	Preflight bool `json:"preflight,omitempty"`

	// Route is the id of the matched route. Empty: none, which is a deny.
	Route string `json:"route,omitempty"`

	Network  Network  `json:"network,omitzero"`
	Identity Identity `json:"identity,omitzero"`
	Session  Session  `json:"session,omitzero"`
	Device   Device   `json:"device,omitzero"`

	// Credential is the access token the request came with, if tokens are
	// accepted here.
	Credential Credential `json:"credential,omitzero"`

	// Fault is set when a fact could not be gathered (the session store or a
	// provider failed). A request with a fault is never allowed.
	Fault Reason `json:"fault,omitempty"`
}

// Credential describes an access token, never its text. The zero value is none.
type Credential struct {
	// Scheme is the way it was sent: "Bearer" or "DPoP".
	Scheme string `json:"scheme,omitempty"`
	// Issued is when the token was issued, by its issuer's clock; zero if it does
	// not say.
	Issued time.Time `json:"issued,omitzero"`
	// Expires is when the token ends.
	Expires time.Time `json:"expires,omitzero"`
	// Problem is why it is not accepted. The request is nobody's then, and no
	// login cures it: whoever sends a token means to be identified by it.
	Problem Reason `json:"problem,omitempty"`
}

// Network says where a request comes from.
type Network struct {
	// IP is the visitor's address, after listed proxies were taken into account
	// and without an IPv6 zone. IPv4-mapped addresses are unmapped.
	IP netip.Addr `json:"ip,omitzero"`
}

// Origin returns scheme://host, the audience of the upstream assertion and the
// scope of an app session. A WebSocket handshake belongs to the origin of its
// page and carries that page's cookies.
func (r *Request) Origin() string {
	switch r.Scheme {
	case "wss":
		return "https://" + r.Host
	case "ws":
		return "http://" + r.Host
	}
	return r.Scheme + "://" + r.Host
}

// MoveTo moves a request to another instant, with everything that happened
// before it: the login is as old as it was, the device reported as long ago, a
// grace period has as long to run. Where it is not known when the request was
// made, that is all that is set.
func (r *Request) MoveTo(at time.Time) {
	by := at.Sub(r.Time)
	if r.Time.IsZero() {
		by = 0
	}
	r.Time = at
	for _, t := range []*time.Time{&r.Identity.Login.Time, &r.Session.Created, &r.Session.Expires, &r.Credential.Issued, &r.Credential.Expires,
		&r.Device.SeenAt, &r.Device.ObservedAt, &r.Device.SourceFailingSince, &r.Device.NonCompliantSince, &r.Device.GraceUntil} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
}
