package lane

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/http"

	"golang.org/x/net/http/httpguts"
)

// request returns the request whose head is all that has been read, or nil if it
// is not a plain one.
func (r *room) request(size int, server *http.Server) *http.Request {
	head := r.in[:size]
	if look(head) != whole || server.MaxHeaderBytes > 0 && size > server.MaxHeaderBytes {
		return nil
	}
	r.source.Reset(head)
	r.text.Reset(&r.source)
	in, err := http.ReadRequest(r.text)
	if err != nil || r.text.Buffered() > 0 || r.source.Len() > 0 || !plain(in) {
		return nil
	}
	return in
}

// What bytes can be of the head of a plain request.
const (
	nothing = iota
	part    // its beginning, and the rest may come
	whole   // all of it, and not a byte more
)

// look tells what bytes are of the head of a GET or HEAD request in lines that end
// with CRLF and begin with a character, of nothing but visible ASCII and blanks
// between. It does not look at what they say.
func look(b []byte) int {
	if !bytes.HasPrefix(b, []byte("GET /")) && !bytes.HasPrefix(b, []byte("HEAD /")) {
		return nothing
	}
	for lines, rest := 0, b; ; lines++ {
		if len(rest) > 0 && rest[0] == ' ' {
			return nothing // the fold of a line
		}
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end < 0:
			if half := bytes.HasSuffix(rest, []byte("\r")); half && controls(b) == 2*lines+1 || !half && controls(b) == 2*lines {
				return part
			}
			return nothing
		case end == 0 || rest[end-1] != '\r':
			return nothing
		case end == 1:
			if len(rest) == len("\r\n") && controls(b) == 2*lines+2 {
				return whole
			}
			return nothing
		}
		rest = rest[end+1:]
	}
}

// controls counts the bytes that are no visible ASCII and no blank, eight at a time.
func controls(b []byte) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		low := x &^ high
		// The highest bit of a byte of the sum is set from 0x20 on, or at 0x7f.
		n += bits.OnesCount64((x | ^(low + 0x60*ones) | (low + ones)) & high)
		b = b[8:]
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			n++
		}
	}
	return n
}

// plain reports whether a request that net/http has read means nothing beyond
// itself, and would pass what http.Server checks: its version, its host and the
// names of its fields; their values consist of visible characters.
func plain(r *http.Request) bool {
	if r.Proto != "HTTP/1.1" || r.Method != http.MethodGet && r.Method != http.MethodHead ||
		r.ContentLength != 0 || r.Body != http.NoBody || r.TransferEncoding != nil || r.Close ||
		r.Host == "" || !httpguts.ValidHostHeader(r.Host) {
		return false
	}
	for name, values := range r.Header {
		switch name {
		case "Connection":
			if len(values) != 1 || values[0] != "keep-alive" {
				return false
			}
		case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Proxy-Connection":
			return false
		default:
			if !httpguts.ValidHeaderFieldName(name) {
				return false
			}
		}
	}
	return true
}
