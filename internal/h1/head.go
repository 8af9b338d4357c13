package h1

import (
	"net/http"
	"strings"
)

// framing is how the end of an answer's content is found (RFC 9112 §6.3).
type framing uint8

const (
	noContent  framing = iota
	counted            // by Content-Length
	chunked            // by the last chunk
	untilClose         // by the end of the connection
)

// parseHead reads the head of an answer to a request of a method: the status
// line and n header fields, each of which ends with CRLF.
func parseHead(res *http.Response, head string, n int, method string) (framing, error) {
	end := strings.IndexByte(head, '\n')
	if end < 0 {
		return noContent, errNotHTTP1
	}
	if err := parseStatus(res, head[:end-1]); err != nil {
		return noContent, err
	}
	var err error
	if res.Header, err = parseFields(head[end+1:], n); err != nil {
		return noContent, err
	}
	return frame(res, method)
}

// parseStatus reads a status line (RFC 9112 §4). The blank in front of an empty
// reason may be missing, as many leave it out.
func parseStatus(res *http.Response, line string) error {
	const before = len("HTTP/1.1 ")
	if len(line) < before+3 || line[:7] != "HTTP/1." || line[before-1] != ' ' {
		return errNotHTTP1
	}
	switch line[7] {
	case '1':
		res.Proto, res.ProtoMinor = "HTTP/1.1", 1
	case '0':
		res.Proto = "HTTP/1.0"
	default:
		return errNotHTTP1
	}
	res.ProtoMajor = 1
	res.Status = line[before:]
	code := 0
	for _, c := range []byte(line[before : before+3]) {
		if c < '0' || c > '9' {
			return bad("the status is no number")
		}
		code = code*10 + int(c-'0')
	}
	if code < 100 {
		return bad("the status %03d means nothing", code)
	}
	if reason := line[before+3:]; reason != "" && (reason[0] != ' ' || !all(reason, valueByte)) {
		return bad("the status line has a strange reason")
	}
	res.StatusCode = code
	return nil
}

// frame finds out where the content of an answer ends. Whatever says it in two
// ways, or in a way that not everybody understands, is refused.
func frame(res *http.Response, method string) (framing, error) {
	h := res.Header
	res.Close = res.ProtoMinor == 0 || hasToken(h["Connection"], "close")
	length, err := contentLength(h["Content-Length"])
	if err != nil {
		return noContent, err
	}
	inChunks := false
	if codings, ok := h["Transfer-Encoding"]; ok {
		switch {
		case res.ProtoMinor == 0:
			return noContent, bad("Transfer-Encoding in HTTP/1.0")
		case len(codings) != 1 || !strings.EqualFold(codings[0], "chunked"):
			return noContent, bad("Transfer-Encoding is something else than chunked")
		case length >= 0:
			return noContent, bad("both Transfer-Encoding and Content-Length")
		}
		inChunks = true
		delete(h, "Transfer-Encoding")
		res.TransferEncoding = inChunksOnly
	}
	none := res.StatusCode < 200 || res.StatusCode == http.StatusNoContent
	switch {
	case none && (inChunks || length > 0):
		return noContent, bad("the status %d with content", res.StatusCode)
	case inChunks:
		if err := announced(res); err != nil {
			return noContent, err
		}
	}
	res.ContentLength = length
	switch {
	case method == http.MethodHead:
		return noContent, nil
	case none || res.StatusCode == http.StatusNotModified:
		res.ContentLength = 0
		return noContent, nil
	case inChunks:
		return chunked, nil
	case length == 0:
		return noContent, nil
	case length > 0:
		return counted, nil
	}
	res.Close = true
	return untilClose, nil
}

var inChunksOnly = []string{"chunked"}

// contentLength reads Content-Length (RFC 9110 §8.6): digits and nothing else,
// once. It returns -1 if there is none.
func contentLength(values []string) (int64, error) {
	if len(values) == 0 {
		return -1, nil
	}
	digits := values[0]
	if len(values) > 1 {
		return 0, bad("Content-Length is there twice")
	}
	if digits == "" || len(digits) > 18 {
		return 0, bad("Content-Length is no number")
	}
	var n int64
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, bad("Content-Length is no number")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// announced notes the names of trailer fields that an answer in chunks announces
// (RFC 9110 §6.6.2).
func announced(res *http.Response) error {
	lines, ok := res.Header["Trailer"]
	if !ok {
		return nil
	}
	delete(res.Header, "Trailer")
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = trimmed(part)
			if part == "" {
				continue
			}
			name, ok := fieldName(part)
			if !ok || neverInTrailer(name) {
				return bad("Trailer announces what is no trailer field")
			}
			if res.Trailer == nil {
				res.Trailer = http.Header{}
			}
			res.Trailer[name] = nil
		}
	}
	return nil
}

// neverInTrailer reports whether a field says how a message is framed or where it
// goes, which has to be known before its content (RFC 9110 §6.5.1).
func neverInTrailer(name string) bool {
	switch name {
	case "Transfer-Encoding", "Content-Length", "Trailer", "Host", "Connection", "Upgrade", "Te":
		return true
	}
	return false
}
