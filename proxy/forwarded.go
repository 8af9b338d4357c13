package proxy

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

var (
	errForwarded      = errors.New("a trusted proxy sent a Forwarded header that does not follow RFC 7239")
	errForwardedTwice = errors.New("a trusted proxy sent a Forwarded header that says one thing twice")
)

// forwardedRelay walks Forwarded (RFC 7239) from the right, as clientAddr does.
// What each trusted proxy says about the scheme and the host that it was asked
// by counts; of several, that of the one furthest from us, which the visitor
// spoke to.
//
// The header is read from the right to the letter: a quotation mark that a
// visitor leaves open would otherwise swallow what a proxy appends behind it. So
// a proxy's own element is found whatever stands left of it, and one that cannot
// be read is the fault of a proxy.
func forwardedRelay(peer netip.Addr, lines []string, trusts func(netip.Addr) bool) (relay, error) {
	said, hops := relay{addr: peer}, 0
	for element := range elements(lines, lastUnquotedComma) {
		if !trusts(said.addr) {
			break
		}
		hop, err := parseForwarded(element)
		if err != nil {
			return relay{}, err
		}
		said.addr = hop.addr
		if hop.proto != "" {
			said.proto = hop.proto
		}
		if hop.host != "" {
			said.host = hop.host
		}
		if hops++; !hop.addr.IsValid() || hops > maxHops {
			said.addr = netip.Addr{}
			break
		}
	}
	return said, nil
}

// lastUnquotedComma returns where the last comma outside quotation marks is,
// counted from the right, or -1.
func lastUnquotedComma(line string) int {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ',' && !quoted:
			return i
		}
	}
	return -1
}

// parseForwarded reads one element (RFC 7239 §4): what one proxy says. The
// address is invalid where it says none, `unknown` or a name of its own making
// (§6.2, §6.3). Parameters that nobody has heard of are skipped.
func parseForwarded(element string) (relay, error) {
	var said relay
	seen := map[string]bool{}
	for rest := element; rest != ""; {
		name, value, behind, ok := cutPair(rest)
		if !ok {
			return relay{}, errForwarded
		}
		rest = behind
		if name = strings.ToLower(name); seen[name] {
			return relay{}, errForwardedTwice
		}
		seen[name] = true
		switch name {
		case "for":
			said.addr, ok = parseNode(value)
		case "by":
			_, ok = parseNode(value)
		case "proto":
			said.proto, ok = value, value != ""
		case "host":
			said.host, ok = value, value != ""
		}
		if !ok {
			return relay{}, errForwarded
		}
	}
	return said, nil
}

// cutPair takes `token=value` and the semicolon behind it off the front. A
// backslash in a quoted value is not taken: no address, scheme or host has one,
// and read from the right it could hide a quotation mark.
func cutPair(s string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(s, "=")
	if !ok || !isToken(name) {
		return "", "", "", false
	}
	if quoted, is := strings.CutPrefix(rest, `"`); is {
		value, rest, ok = strings.Cut(quoted, `"`)
		if !ok || strings.Contains(value, `\`) {
			return "", "", "", false
		}
	} else {
		end := strings.IndexAny(rest, "; \t")
		if end < 0 {
			end = len(rest)
		}
		if value, rest = rest[:end], rest[end:]; !isToken(value) {
			return "", "", "", false
		}
	}
	rest = strings.TrimLeft(rest, " \t")
	if rest == "" {
		return name, value, "", true
	}
	if rest, ok = strings.CutPrefix(rest, ";"); !ok {
		return "", "", "", false
	}
	return name, value, strings.TrimLeft(rest, " \t"), true
}

// parseNode reads a node identifier (RFC 7239 §6), with a port or without. IPv6
// addresses stand in brackets, or a port could be taken for part of them. A zone,
// which means something to the proxy only, is dropped, and IPv4 in IPv6 becomes
// IPv4. ok with an invalid address: there is a node, but not by its address.
func parseNode(node string) (addr netip.Addr, ok bool) {
	name, port, hasPort := node, "", false
	literal := strings.HasPrefix(node, "[")
	if end := strings.IndexByte(node, ']'); literal && end > 0 {
		name = node[1:end]
		port, hasPort = strings.CutPrefix(node[end+1:], ":")
		if !hasPort && port != "" {
			return netip.Addr{}, false
		}
	} else {
		name, port, hasPort = strings.Cut(node, ":")
	}
	if hasPort && !isNodePort(port) {
		return netip.Addr{}, false
	}
	if !literal && (strings.EqualFold(name, "unknown") || isObfuscated(name)) {
		return netip.Addr{}, true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Is6() != literal {
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), true
}

func isNodePort(port string) bool {
	if isObfuscated(port) {
		return true
	}
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil && len(port) <= 5
}

// isObfuscated recognises a name that a proxy made up (RFC 7239 §6.3).
func isObfuscated(name string) bool {
	rest, ok := strings.CutPrefix(name, "_")
	for i := range len(rest) {
		if !unreserved(rest[i]) || rest[i] == '~' {
			return false
		}
	}
	return ok && rest != ""
}

// isToken is RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !unreserved(c) && strings.IndexByte("!#$%&'*+^`|", c) < 0 {
			return false
		}
	}
	return s != ""
}
