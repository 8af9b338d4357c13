package lane

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// said is what the header of a handler says about the framing and the connection,
// and what need not be said for it.
type said struct {
	length     string // "": nothing
	coding     []string
	connection []string
	hasLength  bool
	hasType    bool
	hasDate    bool
	encoded    bool
	trailing   bool     // something may follow the body
	trailers   []string // of that, what is announced
}

// guessed reports whether the type of a body is to be guessed from it.
func (s *said) guessed() bool { return !s.hasType && !s.encoded && first(s.coding) == "" }

// appendStatus appends the first line of an answer.
func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = append(b, "status code "...)
		b = strconv.AppendInt(b, int64(status), 10)
	}
	return append(b, crlf...)
}

// appendFields appends what a header says, but for what begin decides on.
func (s *said) appendFields(b []byte, h http.Header, status int) []byte {
	for name, values := range h {
		switch name {
		case "Content-Length":
			s.hasLength, s.length = true, first(values)
			continue
		case "Transfer-Encoding":
			s.coding = values
			continue
		case "Connection":
			if s.connection = values; !interim(status) {
				continue
			}
		case "Content-Type":
			if s.hasType = true; status == http.StatusNotModified {
				continue
			}
		case "Content-Encoding":
			s.encoded = first(values) != ""
		case "Date":
			s.hasDate = true
		case "Trailer":
			s.trailing = true
			for _, value := range values {
				s.announce(value)
			}
		}
		if strings.HasPrefix(name, http.TrailerPrefix) {
			s.trailing = true
			continue
		}
		b = appendField(b, name, values)
	}
	return b
}

// announce notes the names in a field Trailer that may be there.
func (s *said) announce(names string) {
	for name := range strings.SplitSeq(names, ",") {
		if name = http.CanonicalHeaderKey(textproto.TrimString(name)); name != "" && httpguts.ValidTrailerHeader(name) {
			s.trailers = append(s.trailers, name)
		}
	}
}

// begin completes the head, once it is known what the body begins with, that there is
// none, or that nobody waits for it.
func (a *answer) begin(body []byte) {
	if a.begun {
		return
	}
	a.begun = true
	s, ending, coding := &a.said, a.conn.server.over.Load(), first(a.said.coding)
	length, allowed := a.length, hasBody(a.status)
	switch {
	case a.over.Load() && allowed && !s.hasLength && !s.trailing && coding == "" && (!a.head || len(body) > 0):
		length = int64(len(body)) // that is all
	case length >= 0 && coding != "" && coding != "identity":
		a.conn.server.logf("http: WriteHeader called with both Transfer-Encoding of %q and a Content-Length of %d", coding, length)
		length = -1
	}
	if first(s.connection) == "close" || ending {
		a.closes = true
	}
	if allowed && len(body) > 0 && s.guessed() {
		a.say("Content-Type: ", http.DetectContentType(body))
	}
	if !s.hasDate {
		a.say("Date: ", a.conn.server.clock.date())
	}
	switch {
	case allowed && length >= 0:
		a.out = strconv.AppendInt(append(a.out, "Content-Length: "...), length, 10)
		a.out = append(a.out, crlf...)
	case a.head || !allowed:
	case coding == "identity":
		a.closes = true
	default:
		a.chunks = true
		if coding != "chunked" {
			a.out = appendField(a.out, "Transfer-Encoding", s.coding)
		}
		a.say("Transfer-Encoding: ", "chunked")
	}
	switches := a.status == http.StatusSwitchingProtocols && httpguts.HeaderValuesContainsToken(s.connection, "upgrade")
	if a.closes && !switches && (ending || !httpguts.HeaderValuesContainsToken(s.connection, "close")) {
		a.say("Connection: ", "close")
	} else {
		a.out = appendField(a.out, "Connection", s.connection)
	}
	a.out = append(a.out, crlf...)
}

func (a *answer) say(name, value string) {
	a.out = append(append(append(a.out, name...), value...), crlf...)
}

// appendTrailers appends what a header says behind the body: what was announced, and
// what is marked as such.
func appendTrailers(b []byte, h http.Header, announced []string) []byte {
	for _, name := range announced {
		b = appendField(b, name, h[name])
	}
	for name, values := range h {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			b = appendField(b, name, values)
		}
	}
	return b
}

// appendField appends a line for each value. What is no name is left out, and no value
// ends its line.
func appendField(b []byte, name string, values []string) []byte {
	if !httpguts.ValidHeaderFieldName(name) {
		return b
	}
	for _, value := range values {
		b = append(append(b, name...), ": "...)
		from := len(b)
		b = append(b, textproto.TrimString(value)...)
		for i, c := range b[from:] {
			if c == '\r' || c == '\n' {
				b[from+i] = ' '
			}
		}
		b = append(b, crlf...)
	}
	return b
}

// interim reports whether another answer follows one with a status.
func interim(status int) bool { return status < 200 && status != http.StatusSwitchingProtocols }

// hasBody reports whether an answer with a status can have a body.
func hasBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// first returns the first of several values, "" without one.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
