package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Decider decides. It is pure: the same request always gets the same answer.
type Decider interface {
	// Decide returns the verdict on a request whose facts have been gathered.
	Decide(*access.Request) access.Decision
	// Groups returns the configured groups that the route's rules mention and
	// the identity is in, sorted. Upstreams learn of no others.
	Groups(route string, id *access.Identity) []string
}

// Identifier says who asks.
type Identifier interface {
	// Identify fills req.Identity with req.Session or req.Credential. It leaves Nobody, without an
	// error, where the visitor presents nothing that counts; an error means that
	// it could not tell, which refuses the request.
	Identify(r *http.Request, req *access.Request) error
	// IdentifyAgain is Identify for a request that is open still, with req.Session
	// as it was the last time. What may be shown
	// only once is not asked for again. It counts as a use of the session if used
	// is set: the visitor has sent something since. Where the session is over, it
	// leaves Nobody, and an error that a login cures says how.
	IdentifyAgain(r *http.Request, req *access.Request, used bool) error
}

// Inspector says on which device.
type Inspector interface {
	// Inspect fills req.Device. An error means that it could not tell.
	Inspect(r *http.Request, req *access.Request) error
}

// Rechecker has inventories asked anew.
type Rechecker interface {
	// Recheck has the inventories that know the device read now, and reports
	// whether they were; what they say is in the next answer of Inspect. It waits
	// until ctx ends, and spares the inventories by itself.
	Recheck(ctx context.Context, d *access.Device) bool
}

// Login conducts logins.
type Login interface {
	// Begin answers a navigation with the redirect that starts a login, or a
	// stronger one, and comes back to the same address.
	Begin(w http.ResponseWriter, r *http.Request, req *access.Request, ask access.LoginRequire, provider string) error
	// Serve answers login, callback, logout, backchannel-logout and
	// frontchannel-logout below access.Prefix. An error is returned before
	// anything was written; its reason is shown to the visitor.
	Serve(w http.ResponseWriter, r *http.Request, req *access.Request) error
}

// Sessions knows the sessions of people.
type Sessions interface {
	// OfPerson returns at most limit live sessions of one person, in no order that
	// means anything. more tells that others were left out.
	OfPerson(ctx context.Context, issuer, subject string, limit int) (list []access.SessionInfo, more bool, err error)
}

// Signals takes security events.
type Signals interface {
	// Serve answers a push (RFC 8935). An error is returned before anything but
	// headers was written.
	Serve(w http.ResponseWriter, r *http.Request, req *access.Request) error
}

// Revocations knows what was revoked by the device it is used from.
type Revocations interface {
	// RevokedDevice reports whether what was issued at a moment (a login, a token)
	// may not be used from a device any more by people of an issuer. An error means that it cannot tell,
	// which refuses the request.
	RevokedDevice(issuer, device string, issued time.Time) (bool, error)
	// EndRevoked ends a session that was used from such a device, so that its
	// visitor can log in anew.
	EndRevoked(ctx context.Context, session, device string)
}

// Recorder keeps the audit events.
type Recorder interface {
	// Record takes one event. Its memory is another one's afterwards: who keeps it
	// keeps a copy (access.Event.Clone).
	Record(*access.Event)
	// Err is not nil while events cannot be written.
	Err() error
}

// Snapshot is one configuration in force. It is not changed after Swap.
type Snapshot struct {
	// Version names the configuration in decisions.
	Version string
	// Server is the validated section `server:`. Listen and TLS are used by
	// NewServer and NewTLS; everything else takes effect with the snapshot.
	Server Config
	// Routes finds the route of a request.
	Routes *Table

	Policy   Decider
	Identify Identifier
	Inspect  Inspector   // nil: nothing is known of any device
	Revoked  Revocations // nil: nothing is ever revoked by device
	Recheck  Rechecker   // nil: visitors cannot have a device checked again
	Login    Login
	Sessions Sessions // nil: the portal shows none
	// Signals takes security events that are pushed to access.SignalsPath. Nil: none are.
	Signals Signals
	Forms   Forms // nil: forms that need a login first are not kept

	// Listeners are the addresses at which Doorward itself listens, besides
	// Server.Listen. Tunnels do not lead there.
	Listeners []string

	// AuditRequired refuses what cannot be recorded.
	AuditRequired bool
}

// generation is a snapshot with what is derived from it once, at Swap.
type generation struct {
	*Snapshot
	trusted    []netip.Prefix
	tracers    []netip.Prefix // whose trace context counts
	certHops   *certHops
	authScheme string
	authHost   string // empty: every host does its own logins
	limits     limits
	upstreams  map[*Entry]*upstream
	hsts       string // Strict-Transport-Security, where a host says nothing of its own
}

// owns reports whether reserved paths are served on a host.
func (g *generation) owns(scheme, host string) bool {
	return g.authHost != "" && host == g.authHost && scheme == g.authScheme || g.Routes.owns(scheme, host)
}

// issuer is who assertions for an origin are issued by: the login host, or the
// application's own where there is none.
func (g *generation) issuer(origin string) string {
	if g.authHost == "" {
		return origin
	}
	return g.authScheme + "://" + g.authHost
}

// trusts reports whether an address belongs to a listed proxy.
func (g *generation) trusts(addr netip.Addr) bool {
	return listed(g.trusted, addr)
}

// listed reports whether an address is in one of several networks.
func listed(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(network netip.Prefix) bool { return network.Contains(addr) })
}
