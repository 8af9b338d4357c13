package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// What both clients make of an answer.
func TestAnswers(t *testing.T) {
	type want struct {
		status  int
		length  int64
		body    string
		header  string // name: value
		trailer http.Header
		interim []int
		again   bool // the connection is used again
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		method string
		raw    string
		hangUp bool
		want   want
	}{
		"counted":               {"GET", ok + "Content-Length: 5\r\n\r\nhello", false, want{status: 200, length: 5, body: "hello", again: true}},
		"empty":                 {"GET", ok + "Content-Length: 0\r\n\r\n", false, want{status: 200, again: true}},
		"no reason":             {"GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", false, want{status: 404, again: true}},
		"strange status":        {"GET", "HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", false, want{status: 999, again: true}},
		"blanks around":         {"GET", ok + "X:\t a b \t\r\nContent-Length: 0\r\n\r\n", false, want{status: 200, header: "X: a b", again: true}},
		"no canonical name":     {"GET", ok + "x-mY-nAme: v\r\ncontent-length: 0\r\n\r\n", false, want{status: 200, header: "X-My-Name: v", again: true}},
		"Latin 1":               {"GET", ok + "X: \xe4\r\nContent-Length: 0\r\n\r\n", false, want{status: 200, header: "X: \xe4", again: true}},
		"empty value":           {"GET", ok + "X:\r\nContent-Length: 0\r\n\r\n", false, want{status: 200, header: "X: ", again: true}},
		"in chunks":             {"GET", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", false, want{status: 200, length: -1, body: "hello world", again: true}},
		"in no chunk":           {"GET", ok + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", false, want{status: 200, length: -1, again: true}},
		"large hexadecimal":     {"GET", ok + "Transfer-Encoding: chunked\r\n\r\n0A\r\n0123456789\r\n000\r\n\r\n", false, want{status: 200, length: -1, body: "0123456789", again: true}},
		"announced trailer":     {"GET", ok + "Trailer: x-a, X-B\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: 1\r\n\r\n", false, want{status: 200, length: -1, body: "a", trailer: http.Header{"X-A": {"1"}, "X-B": nil}, again: true}},
		"unannounced trailer":   {"GET", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: 1\r\nX-A: 2\r\n\r\n", false, want{status: 200, length: -1, body: "a", trailer: http.Header{"X-A": {"1", "2"}}, again: true}},
		"until it closes":       {"GET", ok + "\r\nto the end", true, want{status: 200, length: -1, body: "to the end"}},
		"HTTP/1.0":              {"GET", "HTTP/1.0 200 OK\r\n\r\nto the end", true, want{status: 200, length: -1, body: "to the end"}},
		"HTTP/1.0, counted":     {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true, want{status: 200, length: 2, body: "ok"}},
		"closes":                {"GET", ok + "Connection: foo, Close\r\nContent-Length: 2\r\n\r\nok", true, want{status: 200, length: 2, body: "ok"}},
		"HEAD":                  {"HEAD", ok + "Content-Length: 5\r\n\r\n", false, want{status: 200, length: 5, again: true}},
		"HEAD in chunks":        {"HEAD", ok + "Transfer-Encoding: chunked\r\n\r\n", false, want{status: 200, length: -1, again: true}},
		"HEAD of no length":     {"HEAD", ok + "\r\n", false, want{status: 200, length: -1, again: true}},
		"204":                   {"GET", "HTTP/1.1 204 No Content\r\n\r\n", false, want{status: 204, again: true}},
		"204 with zero":         {"DELETE", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, want{status: 204, again: true}},
		"304":                   {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nEtag: x\r\n\r\n", false, want{status: 304, header: "Etag: x", again: true}},
		"100 that nobody asked": {"GET", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", false, want{status: 200, interim: []int{100}, again: true}},
		"103":                   {"GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Content-Length: 1\r\n\r\na", false, want{status: 200, length: 1, body: "a", interim: []int{103, 103}, again: true}},
	} {
		t.Run(name, func(t *testing.T) {
			bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
				up := answering(t, c.raw, c.hangUp)
				client := with(up.dial, Options{})
				for range 2 {
					var interim []int
					req := request(t, c.method, nil)
					req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interim = append(interim, code); return nil },
					}))
					res, body, err := roundTrip(client, req)
					if err != nil {
						t.Fatal(err)
					}
					if res.StatusCode != c.want.status || res.ContentLength != c.want.length || body != c.want.body || !slices.Equal(interim, c.want.interim) {
						t.Errorf("%d, %d bytes %q, interim %v", res.StatusCode, res.ContentLength, body, interim)
					}
					if name, value, ok := strings.Cut(c.want.header, ": "); ok && (len(res.Header[name]) != 1 || res.Header[name][0] != value) {
						t.Errorf("%q", res.Header)
					}
					if !reflect.DeepEqual(res.Trailer, c.want.trailer) {
						t.Errorf("trailer %v", res.Trailer)
					}
				}
				if n := up.conns.Load(); (n == 1) != c.want.again {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

// What no reader should guess about is no answer. net/http takes some of it.
func TestDoubtfulAnswersAreRefused(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, raw := range map[string]string{
		"another protocol":         "SSH-2.0-OpenSSH\r\n",
		"HTTP/2":                   "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.2":                 "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/0.9":                 "<html>",
		"small letters":            "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"two blanks":               "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
		"empty line first":         "\r\n" + ok + "Content-Length: 0\r\n\r\n",
		"status of two digits":     "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
		"status of four digits":    "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"status below 100":         "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"negative status":          "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
		"control in the reason":    "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
		"CR in the reason":         "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
		"bare LF":                  "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"bare LF in a field":       ok + "X: a\nContent-Length: 0\r\n\r\n",
		"bare LF at the end":       ok + "Content-Length: 0\r\n\n",
		"bare CR in a field":       ok + "X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
		"two CR":                   ok + "X: a\r\r\nContent-Length: 0\r\n\r\n",
		"NUL":                      ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"DEL":                      ok + "X: a\x7fb\r\nContent-Length: 0\r\n\r\n",
		"folded":                   ok + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
		"folded first":             ok + " X: a\r\nContent-Length: 0\r\n\r\n",
		"blank before the colon":   ok + "Content-Length : 5\r\n\r\nhello",
		"blank in a name":          ok + "Con tent: 5\r\nContent-Length: 0\r\n\r\n",
		"no colon":                 ok + "nonsense\r\nContent-Length: 0\r\n\r\n",
		"no name":                  ok + ": x\r\nContent-Length: 0\r\n\r\n",
		"name outside ASCII":       ok + "\xc3\xa4: x\r\nContent-Length: 0\r\n\r\n",
		"two lengths":              ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"the same length twice":    ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"a list of lengths":        ok + "Content-Length: 5, 5\r\n\r\nhello",
		"a signed length":          ok + "Content-Length: +5\r\n\r\nhello",
		"a negative length":        ok + "Content-Length: -1\r\n\r\nhello",
		"an empty length":          ok + "Content-Length:\r\n\r\nhello",
		"a hexadecimal length":     ok + "Content-Length: 0x5\r\n\r\nhello",
		"a length of two words":    ok + "Content-Length: 5 5\r\n\r\nhello",
		"a length beyond counting": ok + "Content-Length: 18446744073709551621\r\n\r\nhello",
		"both framings":            ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"both framings, reversed":  ok + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"another coding":           ok + "Transfer-Encoding: gzip\r\n\r\nhello",
		"two codings":              ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"chunked twice":            ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"identity":                 ok + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
		"an empty coding":          ok + "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
		"a quoted coding":          ok + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
		"a coding with a control":  ok + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"chunked in HTTP/1.0":      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"204 with content":         "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
		"204 in chunks":            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"103 with content":         "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + ok + "Content-Length: 0\r\n\r\n",
		"101 that nobody asked":    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"a framing trailer":        ok + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"an endless head":          ok + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 300) + "\r\n",
		"an endless line":          ok + "X: " + strings.Repeat("a", 300<<10) + "\r\n\r\n",
		"too many fields":          ok + strings.Repeat("X: a\r\n", 1001) + "Content-Length: 0\r\n\r\n",
		"endless interim answers":  strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100) + ok + "Content-Length: 0\r\n\r\n",
		"nothing":                  "",
		"half a head":              ok + "Content-Len",
	} {
		t.Run(name, func(t *testing.T) {
			up := answering(t, raw, true)
			client := New(Options{Dial: up.dial})
			defer client.CloseIdleConnections()
			res, body, err := roundTrip(client, request(t, "GET", nil))
			if err == nil {
				t.Errorf("%+v %q", res, body)
			}
			if e := (*Error)(nil); !errors.As(err, &e) || e.NeverSent() {
				t.Errorf("%v", err)
			}
		})
	}
}

// Content is refused when it is read: what came before has been handed on.
func TestDoubtfulContentIsRefused(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
	for name, raw := range map[string]string{
		"no chunk behind":        head,
		"no end":                 head + "0\r\n",
		"no size":                head + "\r\n",
		"size that is none":      head + "xyz\r\n",
		"hexadecimal prefix":     head + "0x1\r\na\r\n0\r\n\r\n",
		"signed size":            head + "+1\r\na\r\n0\r\n\r\n",
		"negative size":          head + "-1\r\na\r\n0\r\n\r\n",
		"blank before the size":  head + " 1\r\na\r\n0\r\n\r\n",
		"blank behind the size":  head + "1 \r\na\r\n0\r\n\r\n",
		"size beyond counting":   head + "ffffffffffffffff\r\na\r\n0\r\n\r\n",
		"size that wraps around": head + "10000000000000001\r\na\r\n0\r\n\r\n",
		"an extension":           head + "1;a=b\r\na\r\n0\r\n\r\n",
		"an empty extension":     head + "1;\r\na\r\n0\r\n\r\n",
		"extension with LF":      head + "1;\na\r\n0\r\n\r\n",
		"extension at the end":   head + "0;a\r\n\r\n",
		"bare LF behind a size":  head + "1\na\r\n0\r\n\r\n",
		"bare LF behind a chunk": head + "1\r\na\n0\r\n\r\n",
		"CR behind a size":       head + "1\r\r\na\r\n0\r\n\r\n",
		"chunk without its end":  head + "1\r\na0\r\n\r\n",
		"longer than its size":   head + "1\r\nab\r\n0\r\n\r\n",
		"shorter than its size":  head + "3\r\na\r\n0\r\n\r\n",
		"bare LF in the trailer": head + "0\r\nX: a\n\r\n",
		"framing in the trailer": head + "0\r\nContent-Length: 5\r\n\r\n",
		"folded trailer":         head + "0\r\nX: a\r\n b\r\n\r\n",
		"endless trailer":        head + "0\r\n" + strings.Repeat("X: aaaaaaaaaaaaaaaaaa\r\n", 200) + "\r\n",
		"shorter than promised":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			up := answering(t, raw, true)
			client := New(Options{Dial: up.dial})
			defer client.CloseIdleConnections()
			_, body, err := roundTrip(client, request(t, "GET", nil))
			if err == nil || !strings.HasPrefix(body, "ok") {
				t.Errorf("%q %v", body, err)
			}
			if client.idle() > 0 {
				t.Error("the connection was kept")
			}
		})
	}
}

// wire sends a request with a client and returns what the upstream got: the
// request line and the sorted fields, then the body as it was framed.
func wire(t *testing.T, with func(dial, Options) roundTripper, req *http.Request) (string, error) {
	got := make(chan string, 1)
	up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
		var lines []string
		chunked, length := false, 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
			fmt.Sscanf(line, "Content-Length: %d", &length)
			chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
			lines = append(lines, line)
		}
		slices.Sort(lines[1:])
		body := make([]byte, length)
		io.ReadFull(r, body)
		for chunked && !strings.HasSuffix(string(body), "0\r\n\r\n") {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			body = append(body, b)
		}
		got <- strings.Join(lines, "") + "\r\n" + string(body)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		io.Copy(io.Discard, conn)
	})
	client := with(up.dial, Options{})
	if _, _, err := roundTrip(client, req); err != nil {
		return "", err
	}
	return <-got, nil
}

// Both clients put the same on the wire.
func TestRequests(t *testing.T) {
	ofUnknownLength := func(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }
	for name, edit := range map[string]func(*http.Request){
		"GET":            func(r *http.Request) {},
		"no method":      func(r *http.Request) { r.Method = "" },
		"host":           func(r *http.Request) { r.Host = "other.example:8080" },
		"address":        func(r *http.Request) { r.URL.Host = "[::1]:8080" },
		"zone":           func(r *http.Request) { r.URL.Host = "[fe80::1%eth0]:8080" },
		"query":          func(r *http.Request) { r.URL.RawQuery = "a=b&c=%20" },
		"empty query":    func(r *http.Request) { r.URL.ForceQuery = true },
		"no path":        func(r *http.Request) { r.URL.Path = "" },
		"encoded path":   func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b", "/a%2Fb" },
		"path to encode": func(r *http.Request) { r.URL.Path = "/ä b" },
		"fields":         func(r *http.Request) { r.Header["X"] = []string{"a", " b\t", ""}; r.Header["x-odd"] = []string{"1"} },
		"another agent":  func(r *http.Request) { r.Header["User-Agent"] = []string{"a", "b"} },
		"framing in fields": func(r *http.Request) {
			r.Header["Content-Length"], r.Header["Trailer"], r.Header["Host"] = []string{"7"}, []string{"X"}, []string{"evil"}
		},
		"close":             func(r *http.Request) { r.Close = true },
		"close said":        func(r *http.Request) { r.Close = true; r.Header.Set("Connection", "close") },
		"empty POST":        func(r *http.Request) { r.Method = "POST" },
		"no body at all":    func(r *http.Request) { r.Method, r.Body = "PUT", http.NoBody },
		"counted POST":      func(r *http.Request) { r.Method, r.Body, r.ContentLength = "POST", ofUnknownLength("hello"), 5 },
		"unknown POST":      func(r *http.Request) { r.Method, r.Body, r.ContentLength = "POST", ofUnknownLength("hello"), -1 },
		"unknown by zero":   func(r *http.Request) { r.Method, r.Body = "POST", ofUnknownLength("hello") },
		"GET with a body":   func(r *http.Request) { r.Body, r.ContentLength = ofUnknownLength("hello"), 5 },
		"unknown GET":       func(r *http.Request) { r.Body, r.ContentLength = ofUnknownLength("h"), -1 },
		"empty unknown GET": func(r *http.Request) { r.Body, r.ContentLength = ofUnknownLength(""), -1 },
		"GET in chunks": func(r *http.Request) {
			r.Body, r.ContentLength, r.TransferEncoding = ofUnknownLength(""), -1, []string{"chunked"}
		},
		"Expect": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", ofUnknownLength("hello"), 5
			r.Header.Set("Expect", "100-continue")
		},
		"long head": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", ofUnknownLength("hello"), 5
			r.Header.Set("X", strings.Repeat("x", 60<<10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
				req := request(t, "GET", nil)
				req.Header.Set("User-Agent", "")
				edit(req)
				text, err := wire(t, with, req)
				if err != nil {
					t.Fatal(err)
				}
				seen = append(seen, text)
			})
			if len(seen) == 2 && seen[0] != seen[1] {
				t.Errorf("ours\n%q\nnet/http\n%q", seen[0], seen[1])
			}
		})
	}
}

func TestRequestsThatCouldMeanSomethingElseAreRefused(t *testing.T) {
	for name, edit := range map[string]func(*http.Request){
		"blank in the method": func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX: " },
		"CONNECT":             func(r *http.Request) { r.Method = "CONNECT" },
		"blank in the query":  func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1" },
		"line in the query":   func(r *http.Request) { r.URL.RawQuery = "a\r\nX: y" },
		"query outside ASCII": func(r *http.Request) { r.URL.RawQuery = "\xff" },
		"line in a value":     func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} },
		"NUL in a value":      func(r *http.Request) { r.Header["X"] = []string{"a\x00"} },
		"blank in a name":     func(r *http.Request) { r.Header["X y"] = []string{"a"} },
		"line in a name":      func(r *http.Request) { r.Header["X\r\nY"] = []string{"a"} },
		"colon in a name":     func(r *http.Request) { r.Header["Content-Length:"] = []string{"a"} },
		"empty name":          func(r *http.Request) { r.Header[""] = []string{"a"} },
		"framing, misspelt":   func(r *http.Request) { r.Header["content-length"] = []string{"5"} },
		"blank in the host":   func(r *http.Request) { r.Host = "a b" },
		"line in the host":    func(r *http.Request) { r.Host = "a\r\nX: y" },
		"path in the host":    func(r *http.Request) { r.Host = "a/b" },
		"user in the host":    func(r *http.Request) { r.Host = "u@a" },
		"another coding":      func(r *http.Request) { r.TransferEncoding = []string{"gzip"} },
		"length without body": func(r *http.Request) { r.ContentLength = 5 },
		"another scheme":      func(r *http.Request) { r.URL.Scheme = "https" },
		"no host":             func(r *http.Request) { r.URL.Host = "" },
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, "GET", nil)
			edit(req)
			client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
				t.Error("dialed")
				return nil, errors.New("no")
			}})
			_, err := client.RoundTrip(req)
			if e := (*Error)(nil); !errors.As(err, &e) || !e.NeverSent() {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestHeaderTimeout(t *testing.T) {
	bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
		for _, body := range []string{"", "hello"} {
			up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
				http.ReadRequest(r)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n") // and not more
				io.Copy(io.Discard, r)
			})
			client := with(up.dial, Options{ResponseHeaderTimeout: 20 * time.Millisecond})
			_, _, err := roundTrip(client, request(t, "POST", strings.NewReader(body)))
			var timeout interface{ Timeout() bool }
			if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
	})
}

// isValue looks at eight bytes at a time; it has to agree with looking at each.
func TestValuesAreWhatTheirBytesAre(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				b := bytes.Repeat([]byte{'x'}, length)
				b[at] = byte(c)
				for _, neighbour := range []byte{' ', '~', 0x80, 0xff, '\t'} {
					if at+1 < length {
						b[at+1] = neighbour
					}
					if got, want := isValue(string(b)), all(string(b), valueByte); got != want {
						t.Fatalf("isValue(%q) = %t", b, got)
					}
				}
			}
		}
	}
}
