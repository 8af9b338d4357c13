package lane

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// request returns the request whose head is all that has been read, or nil if it is
// not a plain one: one that means nothing beyond itself, and passes what http.Server
// checks. What it says is what net/http would make of it, which the fuzzers hold it
// to. It is the room's until that is left.
func (r *room) request(size int, server *http.Server) *http.Request {
	head := r.in[:size]
	if look(head) != whole || server.MaxHeaderBytes > 0 && size > server.MaxHeaderBytes {
		return nil
	}
	// Two texts, because whoever keeps an address is not to keep the cookies as well.
	end := bytes.IndexByte(head, '\n') + 1
	line, fields := string(head[:end]), string(head[end:])
	method, line, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(line, " ")
	if version != "HTTP/1.1\r\n" {
		return nil
	}
	to, err := url.ParseRequestURI(target)
	if err != nil || to.Host != "" {
		return nil
	}
	header, host := plainHeader(fields)
	if header == nil || host == "" || !httpguts.ValidHostHeader(host) {
		return nil
	}
	r.head = http.Request{
		Method: method, URL: to, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody, Host: strings.Clone(host), RequestURI: target,
	}
	return &r.head
}

// plainHeader reads lines of fields up to an empty one. It returns nil if they say
// anything about the connection, a body or what follows, but for what goes without
// saying.
func plainHeader(lines string) (h http.Header, host string) {
	n, named := strings.Count(lines, "\n")-1, false
	h = make(http.Header, n)
	values := make([]string, n)
	for lines != "\r\n" {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, colon := strings.Cut(line, ":")
		if !colon || !httpguts.ValidHeaderFieldName(name) {
			return nil, ""
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " ")
		have, again := h[name]
		switch name {
		case "Host":
			if named {
				return nil, ""
			}
			host, named = value, true
			continue
		case "Connection":
			if again || value != "keep-alive" {
				return nil, ""
			}
		case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Proxy-Connection":
			return nil, ""
		}
		if again {
			h[name] = append(have, value)
			continue
		}
		values[0] = value
		h[name], values = values[:1:1], values[1:]
	}
	if h["Cache-Control"] == nil && first(h["Pragma"]) == "no-cache" {
		h["Cache-Control"] = []string{"no-cache"} // as net/http has it (RFC 7234 §5.4)
	}
	return h, host
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
