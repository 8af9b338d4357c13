package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var (
	errNoConfig        = errors.New("no configuration is in force yet")
	errHeaderSize      = errors.New("more header data than server.max_header_bytes")
	errURLSize         = errors.New("a longer address than server.max_url_bytes")
	errMethod          = errors.New("the method is not written in capital letters")
	errMethodByte      = errors.New("the method holds a byte that none may have")
	errConnect         = errors.New("this is no forward proxy")
	errTargetForm      = errors.New("the request target does not begin with a slash")
	errFragment        = errors.New("the request target holds a fragment")
	errTwoHosts        = errors.New("Host and :authority differ")
	errReadOnly        = errors.New("this address can only be read")
	errNotReserved     = errors.New("no such address below the reserved prefix")
	errNoTarget        = errors.New("the route has no upstream: a front end that asks at server.forward_auth forwards its requests")
	errNoLogin         = errors.New("no login is configured")
	errReservedUpgrade = errors.New("addresses below the reserved prefix cannot be upgraded")
	errForwardProto    = errors.New("a trusted proxy names a protocol that is neither http nor https")
)

// passage is one request on its way past the stations.
type passage struct {
	berth *berth // nil: it only decides again
	door  *Door
	gen   *generation // the configuration it began with
	in    *http.Request
	out   meter

	// What the audit event holds.
	event *access.Event
	req   *access.Request
	dec   *access.Decision

	start time.Time
	entry *Entry
	path  pathname
	inner pathname // what the upstream gets for it
	query string   // as it came
	// certificate is what is wrong with a certificate that a header holds.
	certificate access.Reason
	status      int // overrides the status of a refusal

	// answering is how to answer, where a front end asks about a request that it
	// forwards itself.
	answering answering
	verdict   *Verdict
	question  *Question
	told      http.Header // of the question, before anything was removed
	assertion string
	tokens    map[string]string // assertions in other forms
	groups    []string
	body      tally // what the upstream is sent, if anything
	trip      trip  // to the upstream and back

	tunnel *tunnelling // what is asked for is a tunnel
	// switched takes an upstream's 101, where the request asks for an upgrade.
	switched func(*http.Response) error

	trace    Trace // nil: nobody follows the request
	limiting limiting

	// Together, so that they take eight bytes and not eight each.
	hasQuery bool  // also for a lone question mark
	reserved bool  // one of our own addresses: nothing was decided
	decided  bool  // dec is a verdict
	sent     bool  // the upstream has been asked
	outlives bool  // a goroutine goes on with it when the handler has ended
	traced   bool  // the trace that a header names counts
	used     bool  // the visitor has sent something since the last time
	upgrade  bool  // to another protocol is what the visitor asks for
	returned bool  // the upstream's whole answer is the server's to send
	recorded bool  // the recorder has taken the event
	noticed  bool  // something else than the handler may know it, even after its end
	lane     uint8 // which shard of the open streams it goes to

	// For deciding again while the request is open; see stream.go.
	stream  stream
	flight  flight        // of what the upstream is asked
	signals uint64        // how many there had been before any fact was gathered
	before  *passage      // the passage of the request this one decides on again
	over    access.Reason // how the session ended that made the visitor somebody
}

// begin starts the record of a request before anything about it is looked at.
func (d *Door) begin(w http.ResponseWriter, r *http.Request) *passage {
	n := d.inFlight.Add(1)
	b := berths.Get().(*berth)
	p := &b.passage
	p.berth, p.door, p.gen, p.in, p.start = b, d, d.live.Load(), r, d.now()
	p.event, p.req, p.dec = &b.account.event, &b.account.req, &b.account.dec
	p.lane, p.signals = uint8(n%streamShards), d.streams.signals.Load()
	p.out.ResponseWriter, p.out.passage = w, p
	p.upgrade = upgrades(r.Header)
	p.req.Time = p.start.UTC().Round(0)
	p.req.Door = access.Standalone
	p.req.Method = r.Method
	p.req.Preflight = isPreflight(r)
	p.req.ID = d.newID()
	return p
}

// newID returns 128 random bits in hexadecimal. Without randomness there is no
// telling requests apart, so the request fails.
func (d *Door) newID() string {
	var id [16]byte
	if d.rand == nil {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	} else if err := d.readID(&id); err != nil {
		panic(err)
	}
	var text [32]byte
	hex.Encode(text[:], id[:])
	return string(text[:])
}

func (d *Door) readID(id *[16]byte) error {
	var b [16]byte // what an interface is given does not stay on the stack
	_, err := io.ReadFull(d.rand, b[:])
	*id = b
	return err
}

// receive is station 1: the trust boundary. Behind it the request has one host,
// one path and one query, headers say nothing about the visitor that Doorward
// did not find out itself, and nobody has looked at who is asking.
func (p *passage) receive() error {
	r, req := p.in, p.req
	peer := peerAddr(r.RemoteAddr)
	// Who may ask about a request is believed what it says about it.
	trusts := p.gen.trusts
	if p.answering != ourselves {
		trusts = func(addr netip.Addr) bool { return addr == peer || p.gen.trusts(addr) }
	}
	trusted := trusts(peer)
	said, err := p.relayedBy(peer, trusts)
	req.Network.IP = said.addr
	if trusted {
		if id := r.Header.Get("X-Request-Id"); wellFormedID(id) {
			req.ID = strings.Clone(id) // which stays longer than the header
		}
	}
	if headerBytes(r) > p.gen.Server.headerBytes() {
		return access.Because(access.HeaderTooLarge, errHeaderSize)
	}
	if err != nil {
		return access.Because(access.BadRequest, err)
	}
	if r.Method == http.MethodConnect && p.mayTunnel() {
		return p.receiveConnect(peer, trusted)
	}
	if err := checkMethod(r.Method); err != nil {
		return access.Because(access.BadRequest, err)
	}
	if err := p.receiveOrigin(said); err != nil {
		return access.Because(access.BadRequest, err)
	}
	p.expectWho()
	if err := p.receiveTarget(r.RequestURI); err != nil {
		return err
	}
	p.receiveTunnel()
	p.receiveHeader(peer, trusted)
	return nil
}

// receiveHeader drops what a header may not say, once its origin is known.
func (p *passage) receiveHeader(peer netip.Addr, trusted bool) {
	r := p.in
	known := p.receiveCertificate(peer, trusted)
	p.receiveTrace(peer)
	if dropUntrusted(r.Header, p.traced) && !known {
		p.certificate = access.DeviceCertForged // by nobody who may, or under another name
	}
	// Trailers arrive after the decision and no rule sees them.
	r.Trailer = nil
	delete(r.Header, "Trailer")
}

// checkMethod refuses spellings that a rule would take for an unknown method
// and an upstream for a known one.
func checkMethod(method string) error {
	if method == http.MethodConnect {
		return errConnect
	}
	if !isToken(method) { // over HTTP/2 nobody has looked (RFC 9110 §9.1)
		return errMethodByte
	}
	for i := range len(method) {
		if 'a' <= method[i] && method[i] <= 'z' {
			return errMethod
		}
	}
	return nil
}

// receiveOrigin finds out scheme and host. Only a listed proxy may say that the
// visitor used others than the connection shows.
func (p *passage) receiveOrigin(said relay) error {
	r, req := p.in, p.req
	req.Scheme = "http"
	if r.TLS != nil {
		req.Scheme = "https"
	}
	switch strings.ToLower(said.proto) {
	case "":
	case "https", "wss":
		req.Scheme = "https"
	case "http", "ws":
		req.Scheme = "http"
	default:
		return errForwardProto
	}
	host := r.Host
	if said.host != "" {
		host = said.host
	}
	canonical, err := canonicalHost(host, req.Scheme)
	if err != nil {
		return err
	}
	// HTTP/2 lets a Host header stand beside :authority (RFC 9113 §8.3.1).
	for _, other := range r.Header["Host"] {
		if other, err := canonicalHost(other, req.Scheme); err != nil || other != canonical {
			return errTwoHosts
		}
	}
	req.Host = canonical
	return nil
}

// receiveTarget reads the request target once, from its raw form. Only the
// origin form is taken (RFC 9112 §3.2.1): net/http lets an absolute form
// replace the Host header without a trace, and whoever stands in front of us
// may have looked at that header.
func (p *passage) receiveTarget(target string) error {
	if len(target) > p.gen.Server.urlBytes() {
		p.status = http.StatusRequestURITooLong
		return access.Because(access.BadRequest, errURLSize)
	}
	if !strings.HasPrefix(target, "/") {
		return access.Because(access.BadRequest, errTargetForm)
	}
	if strings.Contains(target, "#") {
		return access.Because(access.BadRequest, errFragment)
	}
	path, query, hasQuery := strings.Cut(target, "?")
	name, err := parsePathname(path)
	if err != nil {
		return err
	}
	if err := checkQuery(query); err != nil {
		return err
	}
	p.path, p.query, p.hasQuery = name, query, hasQuery
	p.req.Path, p.req.Query = name.Path, redactQuery(query)
	if name.Ambiguous != 0 {
		p.req.Ambiguous = name.Ambiguous.names()
	}
	return nil
}

// peerAddr returns the address of a socket's other end, invalid for a socket
// that has none.
func peerAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// wellFormedID accepts request ids that are safe in a header, a log and a page.
func wellFormedID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !unreserved(c) || c == '~' {
			return false
		}
	}
	return true
}
