package access

import (
	"net/netip"
	"strings"
)

// Loopback reports whether a host name or address, without port and brackets,
// cannot be anywhere but on this machine (RFC 6761 §6.3).
func Loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
