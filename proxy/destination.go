package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var (
	errNotTCP      = errors.New("not of the form tcp://name:port")
	errNoPort      = errors.New("the port is missing")
	errNumericHost = errors.New("a number that some systems take for an address")
	errNoAddress   = errors.New("the name has no address")
)

// destination is where a route for tunnels leads.
type destination struct {
	from     string   // canonical name:port, which may begin with "*."
	to       []string // canonical host:port; empty: what is asked for
	networks []netip.Prefix
}

// compileTunnel reads a route for tunnels. What concerns HTTP has no meaning for
// it, and is reported.
func (e *Entry) compileTunnel(f access.Faults) {
	route := e.Route
	e.tunnel = &destination{}
	var err error
	if e.tunnel.from, err = parseTCP(route.From, true); err != nil {
		f.At("from").Add("write tcp://build.corp.example.com:22, or tcp://*.build.corp.example.com:22", "%q: %v", route.From, err)
	}
	for i, to := range route.To {
		target, err := parseTCP(to, false)
		if err != nil {
			f.At("to[%d]", i).Add("write tcp://10.1.2.3:22", "%q: %v", to, err)
		}
		e.tunnel.to = append(e.tunnel.to, target)
	}
	for i, text := range route.Networks {
		network, err := netip.ParsePrefix(text)
		if err != nil || network != network.Masked() || network.Addr().Is4In6() {
			f.At("networks[%d]", i).Add("write 10.1.0.0/16, or 10.1.2.3/32 for one address", "%q is no network", text)
		}
		e.tunnel.networks = append(e.tunnel.networks, network)
	}
	if len(route.To) == 0 && len(route.Networks) == 0 {
		f.At("to").Add("list tcp:// addresses, or say under networks where the names may lead", "the tunnels could lead anywhere")
	}
	checkOpen(route, f)
	checkOnlyTunnel(route, f)
}

// checkOnlyTunnel reports the keys that are about HTTP.
func checkOnlyTunnel(route *access.Route, f access.Faults) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"public", len(route.Public) > 0}, {"headers", len(route.Headers) > 0}, {"upstream_tls", !reflect.DeepEqual(route.UpstreamTLS, access.UpstreamTLS{})},
		{"insecure_upstream", route.InsecureUpstream != ""}, {"preserve_host", route.PreserveHost}, {"websocket", route.WebSocket},
		{"ambiguous_paths", len(route.AmbiguousPaths) > 0}, {"preflight", route.Preflight}, {"timeout", route.Timeout != 0},
		{"host", route.Host != ""}, {"strip_prefix", route.StripPrefix != ""}, {"add_prefix", route.AddPrefix != ""}, {"redirect", route.Redirect.Enabled()},
		{"respond", route.Respond.Enabled()}, {"response_headers", !route.ResponseHeaders.IsZero()}, {"cors", route.CORS.Enabled()}, {"hsts", !route.HSTS.IsZero()},
		{"max_body_bytes", route.MaxBodyBytes != 0}, {"websocket_origins", len(route.WebSocketOrigins) > 0},
		{"upstream", !reflect.DeepEqual(route.Upstream, access.Upstream{})},
	} {
		if key.set {
			f.At("%s", key.name).Add("remove it", "a tunnel carries bytes, and this is about HTTP")
		}
	}
	if len(route.Rules) > 0 {
		f.At("rules").Add("put what is required under require", "a tunnel has neither paths nor methods to be stricter for")
	}
	for kind, rules := range map[string][]access.Rule{"allow": route.Allow, "deny": route.Deny} {
		for i := range rules {
			if len(rules[i].Methods) > 0 {
				f.At("%s[%d].methods", kind, i).Add("remove it", "a tunnel has no methods")
			}
			if len(rules[i].Paths) > 0 {
				f.At("%s[%d].paths", kind, i).Add("remove it", "a tunnel has no paths")
			}
		}
	}
}

// parseTCP reads tcp://name:port into its canonical name:port.
func parseTCP(text string, wildcard bool) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "tcp" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" {
		return "", errNotTCP
	}
	host, wild := u.Host, false
	if wildcard {
		host, wild = strings.CutPrefix(host, "*.")
	}
	if host, err = canonicalTarget(host); err != nil {
		return "", err
	}
	if wild {
		host = "*." + host
	}
	return host, nil
}

// canonicalTarget returns the one spelling of a name or address and a port that
// tunnels are decided on by. A name that some systems would read as an address,
// such as 2130706433, 0x7f.1 or 0177.0.0.1, is an error.
func canonicalTarget(raw string) (string, error) {
	host, err := canonicalHost(raw, "tcp")
	if err != nil {
		return "", err
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || port == "" {
		return "", errNoPort
	}
	if numeric(name) {
		if addr, err := netip.ParseAddr(name); err != nil || addr.String() != name {
			return "", errNumericHost
		}
	}
	return host, nil
}

// numeric reports whether a name ends in a number (URL Standard, "ends in a
// number"): it is an address, or is taken for one somewhere.
func numeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if digits, ok := strings.CutPrefix(last, "0x"); ok {
		_, err := strconv.ParseUint("0"+digits, 16, 64)
		return err == nil || errors.Is(err, strconv.ErrRange)
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// kinds of addresses that matter to the machine Doorward runs on, or to nobody
// in particular: whoever reaches them by a tunnel reaches more than the network.
var (
	metadata4   = netip.MustParsePrefix("169.254.169.254/32")
	metadata6   = netip.MustParsePrefix("fd00:ec2::254/128")
	linkLocal4  = netip.MustParsePrefix("169.254.0.0/16")
	linkLocal6  = netip.MustParsePrefix("fe80::/10")
	loopback4   = netip.MustParsePrefix("127.0.0.0/8")
	loopback6   = netip.MustParsePrefix("::1/128")
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // "this host" of RFC 1122; some systems connect it to themselves
	delicate    = []netip.Prefix{metadata4, metadata6, linkLocal4, linkLocal6, loopback4, loopback6}
	// never are addresses that nothing can be reached at.
	never = []netip.Prefix{thisNetwork, netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("::/128"), netip.MustParsePrefix("ff00::/8")}
	// wrapping are IPv6 networks whose addresses lead to an IPv4 address that they
	// hold, and the byte it begins at.
	wrapping = []struct {
		network netip.Prefix
		at      int
	}{
		{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // NAT64, RFC 6052, RFC 8215
		{netip.MustParsePrefix("2002::/16"), 2}, // 6to4, RFC 3056
		{netip.MustParsePrefix("::/96"), 12},    // IPv4-compatible, RFC 4291 §2.5.5.1
	}
)

// permits tells why a tunnel may not lead to an address; nil if it may. literal
// says that the configuration names the address itself. own reports whether
// Doorward itself listens there.
func (d *destination) permits(at netip.AddrPort, literal bool, own func(netip.AddrPort) bool) error {
	addr := at.Addr().Unmap()
	for _, w := range wrapping {
		if w.network.Contains(addr) && addr != netip.IPv6Loopback() && !addr.IsUnspecified() {
			bytes := addr.As16()
			inner := netip.AddrFrom4([4]byte(bytes[w.at : w.at+4]))
			if err := d.permits(netip.AddrPortFrom(inner, at.Port()), false, own); err != nil {
				return err
			}
		}
	}
	switch {
	case addr.Zone() != "" || listed(never, addr):
		return access.Becausef(access.TargetProhibited, "nothing is reached at %s", addr)
	case literal:
		return nil
	case len(d.networks) > 0 && !listed(d.networks, addr):
		return access.Becausef(access.TargetProhibited, "%s is in none of the route's networks", addr)
	}
	for _, kind := range delicate {
		if kind.Contains(addr) && !d.lists(kind, addr) {
			return access.Becausef(access.TargetProhibited, "%s is in %s, which the route does not list by itself", addr, kind)
		}
	}
	if own(at) && !slices.Contains(d.networks, netip.PrefixFrom(addr, addr.BitLen())) {
		return access.Becausef(access.TargetProhibited, "Doorward itself listens at %s", at)
	}
	return nil
}

// lists reports whether the route lists an address of a kind by a network that is
// about nothing else.
func (d *destination) lists(kind netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(d.networks, func(n netip.Prefix) bool {
		return n.Contains(addr) && n.Bits() >= kind.Bits() && kind.Contains(n.Addr())
	})
}

// targets returns where a tunnel for host, a canonical name and port, leads.
func (d *destination) targets(host string) []string {
	if len(d.to) > 0 {
		return d.to
	}
	return []string{host}
}

// resolve looks a target up once. It returns those addresses to dial, all of
// which are permitted: a name that also leads where it may not is refused as a
// whole.
func (d *destination) resolve(ctx context.Context, target string, look resolver, own func(netip.AddrPort) bool) ([]netip.AddrPort, error) {
	name, text, err := net.SplitHostPort(target)
	if err != nil {
		return nil, access.Because(access.InternalError, err) // it is canonical
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, access.Because(access.InternalError, err)
	}
	addrs := []netip.Addr{}
	addr, err := netip.ParseAddr(name)
	literal := err == nil && len(d.to) > 0
	if err == nil {
		addrs = append(addrs, addr)
	} else if addrs, err = look(ctx, name); err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: errNoAddress.Error(), Name: name, IsNotFound: true}
	}
	var list []netip.AddrPort
	for _, addr := range addrs {
		at := netip.AddrPortFrom(addr.Unmap(), uint16(port))
		// localhost in `to` means this machine as plainly as 127.0.0.1 does.
		here := len(d.to) > 0 && name == "localhost" && addr.IsLoopback()
		if err := d.permits(at, literal || here, own); err != nil {
			return nil, err
		}
		list = append(list, at)
	}
	return list, nil
}

// resolver looks up the addresses of a name.
type resolver = func(ctx context.Context, name string) ([]netip.Addr, error)

const (
	// attemptTimeout is how long one of several addresses may take to answer.
	attemptTimeout = 5 * time.Second
	maxAttempts    = 6
)

// connect makes the connection of a tunnel. It dials exactly the addresses that
// were permitted, one after another.
func (d *destination) connect(ctx context.Context, host string, look resolver, dial dialer, own func(netip.AddrPort) bool) (net.Conn, netip.AddrPort, error) {
	var last error
	attempts := 0
	for _, target := range d.targets(host) {
		list, err := d.resolve(ctx, target, look, own)
		if err != nil {
			last = err
			continue
		}
		for _, at := range list {
			if attempts++; attempts > maxAttempts || ctx.Err() != nil {
				return nil, at, last
			}
			conn, err := dialOne(ctx, at, dial)
			if err == nil {
				return conn, at, nil
			}
			last = err
		}
	}
	if last == nil {
		last = ctx.Err()
	}
	return nil, netip.AddrPort{}, last
}

func dialOne(ctx context.Context, at netip.AddrPort, dial dialer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return dial(ctx, "tcp", at.String())
}

// listens reports whether Doorward itself listens at an address.
func (g *generation) listens(at netip.AddrPort) bool {
	for _, listener := range append([]string{g.Server.Address()}, g.Listeners...) {
		host, port, err := net.SplitHostPort(listener)
		if err != nil || port != fmt.Sprint(at.Port()) {
			continue
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case err == nil && !addr.IsUnspecified():
			if addr.Unmap() == at.Addr() {
				return true
			}
		case isLocal(at.Addr()):
			return true
		}
	}
	return false
}

// isLocal reports whether an address is one of this machine. If that cannot be
// found out, it is.
func isLocal(addr netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		text, _, _ := strings.Cut(a.String(), "/")
		own, err := netip.ParseAddr(text)
		return err == nil && own.Unmap().WithZone("") == addr.WithZone("")
	})
}
