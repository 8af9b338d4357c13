package tunnel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Names of "Template-Driven HTTP CONNECT Proxying for TCP"
// (draft-ietf-httpbis-connect-tcp). The final token is not decided; drafts add
// their number.
const (
	// Template is the beginning of the addresses of tunnels: the host and the port
	// follow, each with a slash behind it.
	Template = "/.well-known/masque/tcp/"
	// Token is the upgrade token, DraftToken that of the draft.
	Token      = "connect-tcp"
	DraftToken = "connect-tcp-12"
	// WebSocketToken opens a tunnel where nothing but WebSocket passes.
	WebSocketToken = "websocket"
	// SubProtocol may be offered with a WebSocket.
	SubProtocol = "doorward-tcp"
)

// Capsule types (RFC 9297 §3.2).
const (
	capsuleData  = 0x2028d7f2
	capsuleFinal = 0x2028d7f3
	// capsuleEnded holds the reason why the door ended the tunnel, in a word. Who
	// does not know it skips it.
	capsuleEnded = 0x26d0a3b1
)

// Headroom is how many bytes in front of its data Send may write to.
const Headroom = 16

// maxWord is the longest reason that is believed.
const maxWord = 64

// appendVarint writes a QUIC variable-length integer (RFC 9000 §16).
func appendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(v)|1<<14)
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(v)|2<<30)
	default:
		return binary.BigEndian.AppendUint64(b, v|3<<62)
	}
}

// TargetOf reads the address of a tunnel. ok is false for every other path; host
// is in brackets if it is an IPv6 address. Percent-encoding is undone once.
func TargetOf(path string) (target string, ok bool) {
	rest, ok := strings.CutPrefix(path, Template)
	if !ok {
		return "", false
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	if len(parts) != 2 {
		return "", true
	}
	host, err := url.PathUnescape(parts[0])
	if err != nil || host == "" || strings.ContainsAny(host, "[]%/@") {
		return "", true
	}
	return net.JoinHostPort(host, parts[1]), true
}

// pathOf returns the address of a tunnel to a host and a port.
func pathOf(host, port string) string {
	return Template + strings.ReplaceAll(url.PathEscape(host), ":", "%3A") + "/" + url.PathEscape(port) + "/"
}

// UpgradeOf returns the protocol that a request wants to switch to, empty if it
// is none of a tunnel.
func UpgradeOf(h http.Header) string {
	if len(h["Upgrade"]) != 1 {
		return ""
	}
	for _, token := range []string{Token, DraftToken, WebSocketToken} {
		if strings.EqualFold(h["Upgrade"][0], token) {
			return token
		}
	}
	return ""
}

// Ended is the error of a tunnel that the other side ended for a reason.
type Ended struct {
	// Word is the reason, a word from the list of package access if the door
	// gave one.
	Word string
}

// Error implements error.
func (e *Ended) Error() string { return fmt.Sprintf("the tunnel was ended: %q", e.Word) }
