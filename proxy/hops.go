package proxy

import (
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// The values of server.forwarded.
const (
	byXForwarded = "x-forwarded"
	byForwarded  = "forwarded"
)

// maxHops is how many listed proxies may stand in a row. Behind more of them
// nobody knows whom a request is from.
const maxHops = 32

func (c *Config) validateForwarded(f access.Faults) {
	switch {
	case c.Forwarded != "" && c.Forwarded != byXForwarded && c.Forwarded != byForwarded:
		f.Add("write x-forwarded or forwarded", "%q is no kind of header", c.Forwarded)
	case c.Forwarded != "" && len(c.TrustedProxies) == 0:
		f.Add("list the proxies whose word counts in trusted_proxies, or take it out", "nobody's headers count")
	}
}

// relay is what listed proxies say about a request: whom it is from, and the
// scheme and host that the visitor used. Empty: they say nothing.
type relay struct {
	addr        netip.Addr // invalid: nobody knows
	proto, host string
}

// relayedBy reads the headers that count, from a peer whose word does. Which of
// them do is one choice: whoever mixed two could be told two things. The doors of
// front ends have no choice, since those headers are how a question is put.
func (p *passage) relayedBy(peer netip.Addr, trusts func(netip.Addr) bool) (relay, error) {
	if !trusts(peer) {
		return relay{addr: peer}, nil
	}
	h := p.in.Header
	if p.answering == ourselves && p.gen.Server.Forwarded == byForwarded {
		return forwardedRelay(peer, h["Forwarded"], trusts)
	}
	return relay{
		addr:  clientAddr(peer, h["X-Forwarded-For"], trusts),
		proto: lastOf(h["X-Forwarded-Proto"]),
		host:  lastOf(h["X-Forwarded-Host"]),
	}, nil
}

// relayed reports whether a listed proxy speaks for somebody else, by whichever
// header.
func relayed(h http.Header) bool {
	return slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"},
		func(name string) bool { return len(h[name]) > 0 })
}

// clientAddr walks X-Forwarded-For from the right, the end that proxies append
// to, for as long as the address that speaks is trusted. What stands further
// left is anybody's invention. The address is invalid where a trusted one names
// none: it speaks for somebody, and is not that somebody itself.
func clientAddr(peer netip.Addr, lines []string, trusts func(netip.Addr) bool) netip.Addr {
	addr, hops := peer, 0
	for element := range elements(lines, lastComma) {
		if !trusts(addr) {
			break
		}
		next, ok := parseHop(element)
		if hops++; !ok || hops > maxHops {
			return netip.Addr{}
		}
		addr = next
	}
	return addr
}

// elements yields the elements of a list header from the right, over all its
// lines. comma returns where the last one of a line begins behind, or -1.
func elements(lines []string, comma func(string) int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for end := 0; end >= 0; {
				end = comma(line)
				if !yield(strings.Trim(line[end+1:], " \t")) {
					return
				}
				line = line[:max(end, 0)]
			}
		}
	}
}

func lastComma(line string) int { return strings.LastIndexByte(line, ',') }

// parseHop reads an address, with a port where a proxy adds one.
func parseHop(hop string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(hop)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// lastOf returns the last element of a comma-separated header: what the nearest
// proxy wrote.
func lastOf(values []string) string {
	for element := range elements(values, lastComma) {
		return element
	}
	return ""
}
