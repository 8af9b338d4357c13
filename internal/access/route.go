package access

// Route is one protected application as the configuration writes it. Package
// authz compiles who may use it, package proxy how it is matched and forwarded.
type Route struct {
	// ID names the route in logs, audit events and metrics. Required, unique.
	ID string `yaml:"id"`
	// From is the external address: `https://app.corp.example.com`, optionally
	// with a path prefix, or `https://*.apps.example.com` for all hosts one
	// label below. The most specific host wins, then the longest path. With
	// `tcp://build.corp.example.com:22`, or `tcp://*.build.corp.example.com:22`, the
	// route is for tunnels of TCP connections.
	From string `yaml:"from"`
	// To lists the upstream addresses: http, https or h2c (HTTP/2 without TLS), or
	// for tunnels `tcp://10.1.2.3:22`. Needed unless the route answers by itself
	// (redirect, respond), or a front end forwards the
	// requests and only asks what Doorward decides (server.forward_auth,
	// server.ext_authz, server.spoe). Tunnels without it lead to the name and the
	// port that are asked for, within `networks`.
	To []string `yaml:"to"`
	// Networks lists, in CIDR notation, the addresses that a tunnel may lead to:
	// every address of its name has to be in one of them. Needed without `to`.
	// Addresses that matter to this machine (loopback, link-local and metadata
	// services, Doorward's own listeners) are reached only if an entry is about
	// nothing else, such as `127.0.0.1/32`, or if `to` has the address itself.
	Networks []string `yaml:"networks"`
	// Label is the sensitivity of the data behind the route, free text for audit.
	Label string `yaml:"label"`
	// Provider is the id of the identity provider visitors of this route log in
	// with. Default: by e-mail domain, or a page to choose from.
	Provider string `yaml:"provider"`

	// Require says how sure Doorward must be before it lets anyone in, in
	// addition to defaults.require.
	Require Require `yaml:"require"`
	// Exceptions lifts single default requirements from this route, each with
	// the reason in writing; `doorward check` lists them.
	Exceptions Exceptions `yaml:"exceptions"`
	// Allow says who may do what. At least one rule must match.
	Allow []Rule `yaml:"allow"`
	// Deny refuses what an allow rule lets through. One match is enough.
	Deny []Rule `yaml:"deny"`
	// Rules add requirements for some paths or methods. They never loosen.
	Rules []Stricter `yaml:"rules"`
	// Public lists what may pass without login.
	Public []Public `yaml:"public"`

	// Portal says how the route appears among a visitor's applications at
	// `/.doorward/portal`.
	Portal Portal `yaml:"portal"`

	// Headers sets request headers for the upstream from facts about the
	// visitor: header name to one of `sub`, `user`, `email`, `name`, `username`,
	// `groups`, `provider`, `device`, `claim.NAME`. The name `preset` stands for all
	// headers that an application expects which was made for `oauth2-proxy`,
	// `authelia`, `pomerium`, `iap` or `cloudflare`; see docs/front-ends.md.
	Headers map[string]string `yaml:"headers"`
	// UpstreamTLS configures TLS towards the upstream.
	UpstreamTLS UpstreamTLS `yaml:"upstream_tls"`
	// InsecureUpstream is the written reason why requests travel in plaintext
	// to an upstream that is not on this machine.
	InsecureUpstream string `yaml:"insecure_upstream"`
	// PreserveHost sends the visitor's Host header instead of the upstream's name.
	PreserveHost bool `yaml:"preserve_host"`
	// Host is what the upstream gets as the Host header, instead of its own name.
	Host string `yaml:"host"`
	// StripPrefix is taken off the front of the path before it goes to the upstream.
	// It is the path of `from`, or its beginning. Policy sees the whole path.
	StripPrefix string `yaml:"strip_prefix"`
	// AddPrefix is put in front of the path that goes to the upstream.
	AddPrefix string `yaml:"add_prefix"`
	// Redirect answers with a redirect. Such a route has no `to`.
	Redirect Redirect `yaml:"redirect"`
	// Respond answers with a fixed text. Such a route has no `to`.
	Respond Respond `yaml:"respond"`
	// ResponseHeaders edits the headers of the route's answers.
	ResponseHeaders ResponseHeaders `yaml:"response_headers"`
	// CORS says which pages of other origins may use the route. Default: whatever
	// the upstream says.
	CORS CORS `yaml:"cors"`
	// HSTS replaces server.tls.hsts for the host of the route.
	HSTS HSTS `yaml:"hsts"`
	// MaxBodyBytes replaces server.max_body_bytes for this route; -1 is no limit.
	MaxBodyBytes int64 `yaml:"max_body_bytes"`
	// WebSocket lets visitors upgrade connections to WebSocket. Default false.
	WebSocket bool `yaml:"websocket"`
	// WebSocketOrigins lists the origins, besides the route's own, whose pages may
	// open a WebSocket with the visitor's login: `https://app.example.com`, or
	// `https://*.apps.example.com`. Programs, which name no origin, always may.
	WebSocketOrigins []string `yaml:"websocket_origins"`
	// AmbiguousPaths lists spellings this upstream needs although servers
	// disagree on their meaning: `encoded_slash`, `encoded_percent`,
	// `empty_segment`, `semicolon`, `backslash`. Default: each is answered 400.
	AmbiguousPaths []string `yaml:"ambiguous_paths"`
	// Preflight answers CORS preflight requests without login, passing them to
	// the upstream. Default false. With `cors`, Doorward answers them itself.
	Preflight bool `yaml:"preflight"`
	// Limits is how much of this route one person, machine or network, and all
	// together, may use.
	Limits RouteLimits `yaml:"limits"`
	// OnChange says what becomes of what is open when the visitor may not go on.
	OnChange OnChange `yaml:"on_change"`
	// Recheck replaces server.recheck for this route. At least 1s.
	Recheck Duration `yaml:"recheck"`
	// Timeout is how long the upstream may take until it sends response
	// headers, all its addresses together, from when it has the request. Default
	// 60s. Streams are not cut by it.
	Timeout Duration `yaml:"timeout"`
	// Upstream says how the addresses in `to` are used.
	Upstream Upstream `yaml:"upstream"`
}

// Portal says how a route appears in the portal. By default it is listed for
// whoever can open its start page at that moment, and for nobody else.
type Portal struct {
	// Title is what visitors read. Default: the host, and the path if there is one.
	Title string `yaml:"title"`
	// ShowLocked lists the application also for people who cannot open it, with
	// the reason why and what unlocks it. Everybody who can log in then learns that
	// it exists. Default false.
	ShowLocked bool `yaml:"show_locked"`
	// Hidden lists the application for nobody. Default false.
	Hidden bool `yaml:"hidden"`
}

// OnChange says what becomes of open connections that no longer pass: their
// session ended, the device or the policy changed.
type OnChange struct {
	// CloseStreams is how long they go on before they are closed, so that what is
	// missing can be cured or work be saved. It also delays what an administrator
	// revokes. At most 10m. Default 0.
	CloseStreams Duration `yaml:"close_streams"`
}

// Defaults hold for every route.
type Defaults struct {
	// Require is added to the requirements of every route.
	Require Require `yaml:"require"`
}

// Exceptions waives default requirements. Each value is the written reason.
type Exceptions struct {
	// Device waives defaults.require.device.
	Device string `yaml:"device"`
	// Login waives defaults.require.login.
	Login string `yaml:"login"`
}

// Require says how sure Doorward must be. Everything named must hold; what is
// missing can be cured by the visitor, so it leads to a challenge.
type Require struct {
	// Device names the device profile that must hold, or the trust tier the
	// device must at least be in.
	Device string `yaml:"device"`
	// Login says how the visitor must have logged in.
	Login LoginRequire `yaml:"login"`
}

// LoginRequire is a demand on the authentication event.
type LoginRequire struct {
	// ACR lists accepted authentication context classes. The levels `aal1`,
	// `aal2` (or `mfa`), `phr` (phishing resistant) and `phrh` (with a key in
	// hardware) each accept the stronger ones; what a provider calls them says
	// its `assurance`. Any other name is a class of the provider's own, such as
	// the authentication context `c1` of Entra.
	ACR []string `yaml:"acr" json:"acr,omitempty"`
	// PhishingResistant demands the level `phr`, such as a passkey or a
	// security key gives. It is never concluded from `mfa`, `otp` or `sms`.
	PhishingResistant bool `yaml:"phishing_resistant" json:"phishing_resistant,omitempty"`
	// AMR lists methods of which at least one must have been used (RFC 8176),
	// such as `mfa` or `hwk`.
	AMR []string `yaml:"amr" json:"amr,omitempty"`
	// MaxAge is how long ago the visitor may have authenticated.
	MaxAge Duration `yaml:"max_age" json:"max_age,omitempty"`
}

// IsZero reports whether nothing is demanded.
func (l LoginRequire) IsZero() bool {
	return len(l.ACR) == 0 && len(l.AMR) == 0 && l.MaxAge == 0 && !l.PhishingResistant
}

// Rule is one entry of `allow` or `deny`. Its keys are joined by AND, the
// values of one key by OR; the order of rules means nothing.
type Rule struct {
	// Name identifies the rule within its route. Required, unique.
	Name string `yaml:"name"`
	// Mode `report` counts and records what the rule would change without
	// enforcing it. Default `enforce`.
	Mode Mode `yaml:"mode"`

	// AnyUser matches every person who is logged in, and no machine. An allow
	// rule must say who it is for; this is how it says "all of them".
	AnyUser bool `yaml:"any_user"`
	// Groups names entries of the top-level `groups`.
	Groups []string `yaml:"groups"`
	// Users names people as PROVIDER:SUB.
	Users []string `yaml:"users"`
	// Providers names identity providers.
	Providers []string `yaml:"providers"`
	// Claims maps claim names to accepted values. A claim that is a list
	// matches if one of its members does.
	Claims map[string][]string `yaml:"claims"`

	// ServiceAccounts names Kubernetes service accounts as NAMESPACE/NAME. With
	// several providers, `providers` has to say whose. An allow rule matches a
	// machine only if it has this key or one of the next three.
	ServiceAccounts []string `yaml:"service_accounts"`
	// SPIFFE lists SPIFFE IDs such as `spiffe://prod.example/billing`. With `/**`
	// at its end an entry stands for everything below.
	SPIFFE []string `yaml:"spiffe"`
	// ClientIDs names the OAuth clients that access tokens were issued to, as
	// PROVIDER:CLIENT_ID, whoever is the subject.
	ClientIDs []string `yaml:"client_ids"`
	// Scopes lists scopes of access tokens, of which one suffices. To demand
	// several, write `when: "'a' in token.scopes && 'b' in token.scopes"`.
	Scopes []string `yaml:"scopes"`

	// Methods lists HTTP methods.
	Methods []string `yaml:"methods"`
	// Paths lists globs: `*` stands for one path segment or part of it, `**`
	// for any number of segments.
	Paths []string `yaml:"paths"`
	// Networks lists visitor addresses in CIDR notation.
	Networks []string `yaml:"networks"`
	// Time limits the rule to a weekly window.
	Time TimeWindow `yaml:"time"`

	// When is a CEL expression that must be true.
	When string `yaml:"when"`
	// Unless is a CEL expression that must be false.
	Unless string `yaml:"unless"`

	// Message is shown to visitors a deny rule refuses.
	Message string `yaml:"message"`
}

// Mode says whether a rule counts. The zero value enforces.
type Mode string

// The modes of a rule.
const (
	Enforce Mode = ""
	Report  Mode = "report"
)

// TimeWindow is a weekly window in one time zone.
type TimeWindow struct {
	// Days lists days or ranges: `mon-fri`, `sat`, `mon,wed,fri`. Default: all.
	Days string `yaml:"days"`
	// Hours is the span `08:00-18:00`; the end is not part of it. A span that
	// ends before it starts runs over midnight and belongs to the day it starts.
	Hours string `yaml:"hours"`
	// Zone is an IANA time zone. Default UTC.
	Zone string `yaml:"zone"`
}

// IsZero reports whether the window is always open.
func (t TimeWindow) IsZero() bool { return t == TimeWindow{} }

// Stricter adds requirements for part of a route.
type Stricter struct {
	// Paths lists globs, as in a rule. Default: all.
	Paths []string `yaml:"paths"`
	// Methods lists HTTP methods. Default: all.
	Methods []string `yaml:"methods"`
	// Require holds in addition to the route's own.
	Require Require `yaml:"require"`
}

// Public lets requests through without login. It is the only thing that does.
type Public struct {
	// Name identifies the rule within its route. Required, unique.
	Name string `yaml:"name"`
	// Methods lists HTTP methods. Required.
	Methods []string `yaml:"methods"`
	// Paths lists globs. Required.
	Paths []string `yaml:"paths"`
	// Networks limits the rule to visitor addresses in CIDR notation.
	Networks []string `yaml:"networks"`
}

// UpstreamTLS configures TLS towards an upstream. Certificates are always
// verified.
type UpstreamTLS struct {
	// CA is a PEM file with the certificate authorities to trust instead of the
	// system's.
	CA string `yaml:"ca" doorward:"file"`
	// ClientCert and ClientKey are PEM files Doorward presents to the upstream.
	ClientCert string `yaml:"client_cert" doorward:"file"`
	// ClientKey belongs to ClientCert.
	ClientKey string `yaml:"client_key" doorward:"file"`
	// ServerName is the name the upstream's certificate must carry, where it
	// differs from the host in `to`. With spiffe it is only asked for (SNI).
	ServerName string `yaml:"server_name"`
	// SAN lists names, in DNS or IP addresses, of which the certificate must carry
	// one in addition, exactly as it is written here. Anybody else is answered
	// with `upstream_identity_wrong` before anything of a request is sent.
	SAN []string `yaml:"san"`
	// SPIFFE is the id of the workload the upstream must be, such as
	// `spiffe://prod.example/billing`, instead of having the host's name. Needs ca,
	// with the authorities of its trust domain.
	SPIFFE string `yaml:"spiffe"`
}

// IsZero reports whether nothing is configured.
func (u *UpstreamTLS) IsZero() bool {
	return u.CA == "" && u.ClientCert == "" && u.ClientKey == "" && u.ServerName == "" && len(u.SAN) == 0 && u.SPIFFE == ""
}

// Group is a name that rules may use.
type Group struct {
	// Provider is the provider whose claim_groups count.
	Provider string `yaml:"provider"`
	// ClaimGroups lists group names as that provider spells them; one suffices.
	ClaimGroups []string `yaml:"claim_groups"`
	// Users lists single people as PROVIDER:SUB.
	Users []string `yaml:"users"`
}
