package lane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// heads are what a visitor may send, and whether the lane serves it.
var heads = []struct {
	name, text string
	plain      bool
}{
	{"the least", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"HEAD", "HEAD /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n", true},
	{"a browser's", "GET /a/b?c=d&e=%20f HTTP/1.1\r\nHost: app.localhost:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate\r\nCookie: a=b; c=d\r\nSec-Fetch-Mode: navigate\r\nConnection: keep-alive\r\nPragma: no-cache\r\n\r\n", true},
	{"a field twice", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\n\r\n", true},
	{"an empty field", "GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: \r\n\r\n", true},
	{"blanks around a value", "GET / HTTP/1.1\r\nHost:  a  \r\nX-A:   1  \r\n\r\n", true},
	{"names in small letters", "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1\r\nx_under: 1\r\n\r\n", true},
	{"two slashes", "GET //a/b HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"Pragma alone", "GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n", true},
	{"Pragma with Cache-Control", "GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\nCache-Control:\r\n\r\n", true},
	{"Pragma twice", "GET / HTTP/1.1\r\nHost: a\r\nPragma: x\r\nPragma: no-cache\r\n\r\n", true},
	{"a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"a host with a port", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", true},

	// A body, or what might be one.
	{"a length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false},
	{"a length and a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", false},
	{"two lengths", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false},
	{"a signed length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", false},
	{"a length with a blank before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", false},
	{"chunks", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"chunks and a length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"another coding", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", false},
	{"identity", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", false},
	{"a coding behind a tab", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n", false},
	{"a coding in a fold", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", false},
	{"a coding behind a bare LF", "GET / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", false},
	{"a coding behind a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", false},
	{"a coding with a vertical tab", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", false},
	{"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", false},
	{"OPTIONS", "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"a body that nothing announces", "GET / HTTP/1.1\r\nHost: a\r\n\r\nhello", false},
	{"a trailer", "GET / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n\r\n", false},

	// More or less than one request.
	{"two requests", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n", false},
	{"two blank lines", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\n", false},
	{"a blank line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"half a head", "GET / HTTP/1.1\r\nHost: a\r\n", false},
	{"half a line end", "GET / HTTP/1.1\r\nHost: a\r\n\r", false},
	{"a few letters", "GET /", false},
	{"no field", "GET / HTTP/1.1\r\n\r\n", false},
	{"longer than the room", "GET / HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("x", headRoom) + "\r\n\r\n", false},

	// About the connection.
	{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
	{"keep-alive and more", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n", false},
	{"keep-alive twice", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
	{"Keep-Alive in capitals", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", false},
	{"an upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false},
	{"an upgrade without a word of it", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", false},
	{"an upgrade to HTTP/2", "GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AAAA\r\n\r\n", false},
	{"TE", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", false},
	{"Expect", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", false},
	{"Proxy-Connection", "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n", false},

	// Hosts.
	{"no host", "GET / HTTP/1.1\r\nX-A: a\r\n\r\n", false},
	{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", false},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false},
	{"a host behind none", "GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n", false},
	{"a host before none", "GET / HTTP/1.1\r\nHost: a\r\nHost:\r\n\r\n", false},
	{"one host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", false},
	{"no host at all", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", false},
	{"a host in a fold", "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", false},
	{"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", false},

	// Lines and characters.
	{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", false},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", false},
	{"HTTP/2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", false},
	{"HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", false},
	{"small letters", "get / http/1.1\r\nHost: a\r\n\r\n", false},
	{"two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"a blank at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", false},
	{"no version", "GET /\r\nHost: a\r\n\r\n", false},
	{"a bad escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"letters outside ASCII in the target", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"letters outside ASCII in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: ä\r\n\r\n", false},
	{"NUL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n", false},
	{"DEL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: a\x7fb\r\n\r\n", false},
	{"bare LF", "GET / HTTP/1.1\nHost: a\n\n", false},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", false},
	{"two CR", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", false},
	{"a tab in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: a\tb\r\n\r\n", false},
	{"a fold", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", false},
	{"a fold first", "GET / HTTP/1.1\r\n X-A: 1\r\nHost: a\r\n\r\n", false},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", false},
	{"no name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", false},
	{"a blank before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n", false},
	{"a blank in a name", "GET / HTTP/1.1\r\nHost: a\r\nX A: 1\r\n\r\n", false},
	{"a bracket in a name", "GET / HTTP/1.1\r\nHost: a\r\nX(A: 1\r\n\r\n", false},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false},
	{"HTTP/2 from the start", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
}

// asked is what a handler is told of a request.
type asked struct {
	Method, Host, URI, Proto, From, Body string
	URL                                  url.URL
	Header, Trailer                      http.Header
	Length                               int64
	Codings                              []string
	Close, TLS                           bool
}

// witness remembers what it is asked, and answers with a part of it.
type witness struct {
	mu    sync.Mutex
	asked []asked
	lane  int // how often by the lane
}

func (h *witness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	a := asked{r.Method, r.Host, r.RequestURI, r.Proto, r.RemoteAddr, fmt.Sprintf("%q %v", body, err), *r.URL, maps.Clone(r.Header), r.Trailer,
		r.ContentLength, r.TransferEncoding, r.Close, r.TLS != nil}
	if a.From, _, err = net.SplitHostPort(r.RemoteAddr); err != nil {
		panic(err)
	}
	h.mu.Lock()
	h.asked = append(h.asked, a)
	if inLane(w) {
		h.lane++
	}
	h.mu.Unlock()
	w.Header().Set("X-Host", r.Host)
	fmt.Fprintf(w, "%s %s", r.Method, r.URL)
}

// told is what came of a text that a visitor sent.
type told struct {
	asked   []asked
	answers []string
}

// tell sends a text over a connection of its own, in two pieces if cut is within it,
// and reads what comes until the end.
func (s *served) tell(h *witness, text []byte, cut int) told {
	v := s.visitor()
	defer v.Close()
	if cut > 0 && cut < len(text) {
		v.Write(text[:cut])
		text = text[cut:]
	}
	v.Write(text) // it may be closed already
	v.Conn.(*net.TCPConn).CloseWrite()
	var got told
	for i := 0; ; i++ {
		method := http.MethodGet
		v.text.Peek(1) // then the request has been asked, if it is one
		h.mu.Lock()
		if i < len(h.asked) {
			method = h.asked[i].Method
		}
		h.mu.Unlock()
		res, body, err := v.listen(method)
		if res != nil {
			delete(res.Header, "Date")
			if errors.Is(err, syscall.ECONNRESET) {
				err = nil // what was refused before it was read has this end or the other, by chance
			}
			got.answers = append(got.answers, fmt.Sprint(res.Status, res.Proto, res.Header, res.ContentLength, res.TransferEncoding, res.Close, body, err))
		}
		if err != nil || res.Close {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	got.asked, h.asked = h.asked, nil
	return got
}

// What the lane serves is read as http.Server reads it, and everything else arrives
// there with every byte.
func TestRequestsMeanWhatNetHTTPSays(t *testing.T) {
	ours, theirs := &witness{}, &witness{}
	lane, standard := start(t, true, ours), start(t, false, theirs)
	for _, h := range heads {
		if h.name == "HTTP/2 from the start" {
			continue // has a test of its own
		}
		for cut := range min(len(h.text), 40) {
			got, want := lane.tell(ours, []byte(h.text), cut), standard.tell(theirs, []byte(h.text), cut)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %q\n%+v\nwant\n%+v", h.name, h.text, got, want)
			}
			if cut == 0 && (ours.lane == 1) != h.plain || cut > len("HEAD /") && h.plain && ours.lane != 1 {
				t.Errorf("%s: %q, cut at %d, was answered %d times in the lane", h.name, h.text, cut, ours.lane)
			}
			ours.lane = 0
		}
	}
	for _, size := range []int{headRoom - 1, headRoom, headRoom + 1} {
		text := "GET / HTTP/1.1\r\nHost: a\r\nX-A: \r\n\r\n"
		text = strings.Replace(text, "X-A: ", "X-A: "+strings.Repeat("x", size-len(text)), 1)
		if got, want := lane.tell(ours, []byte(text), 0), standard.tell(theirs, []byte(text), 0); !reflect.DeepEqual(got, want) || len(got.asked) != 1 {
			t.Errorf("%d bytes: %+v\nwant\n%+v", size, got, want)
		}
	}
}

// A plain request is the same behind others, of whatever kind.
func TestOneConnectionCarriesMany(t *testing.T) {
	s := start(t, true, where)
	v := s.visitor()
	for _, ask := range []struct{ text, method, want string }{
		{get("/1"), "GET", "lane /1"},
		{get("/2"), "GET", "lane /2"},
		{"HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", ""},
		{get("/4"), "GET", "lane /4"},
		{"POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "POST", "net/http /5"},
		{get("/6"), "GET", "net/http /6"}, // for good
	} {
		v.say(ask.text)
		if res, body := v.hear(ask.method); body != ask.want || res.Close {
			t.Errorf("%q: %q, %+v", ask.text, body, res)
		}
	}
}

// A head that comes in pieces is waited for a moment, and is net/http's if it takes
// longer.
func TestHeadsInPieces(t *testing.T) {
	s := start(t, true, where)
	text := get("/a")
	for _, c := range []struct {
		wait time.Duration
		want string
	}{{gatherWait / 10, "lane /a"}, {2 * gatherWait, "net/http /a"}} {
		v := s.visitor().say(text[:10])
		<-time.After(c.wait)
		v.say(text[10:20])
		v.say(text[20:])
		if _, body := v.hear("GET"); body != c.want && c.wait > gatherWait || !strings.HasSuffix(body, " /a") {
			t.Errorf("after %v: %q", c.wait, body)
		}
	}
}

// A request behind another may begin as slowly as it likes, within the time that
// connections may wait.
func TestSlowBeginnings(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		s := start(t, lane, where)
		v := s.visitor()
		v.say(get("/1")).hear("GET")
		for _, letter := range get("/2")[:6] {
			v.say(string(letter))
			<-time.After(time.Millisecond)
		}
		v.say(get("/2")[6:])
		if _, body := v.hear("GET"); !strings.HasSuffix(body, " /2") {
			t.Errorf("%q", body)
		}
	})
}

// More header than http.Server takes is refused by it.
func TestHeadersAreBoundedAsInNetHTTP(t *testing.T) {
	both(t, func(t *testing.T, inLane bool) {
		s := start(t, inLane, where, func(h *http.Server) { h.MaxHeaderBytes = 1 })
		v := s.visitor().say("GET / HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("x", 5<<10) + "\r\n\r\n")
		if res, _ := v.hear("GET"); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Error(res.Status)
		}
	})
}

// read has a room read a text, as a connection does.
func readPlain(text []byte) *http.Request {
	if len(text) > headRoom {
		return nil
	}
	r := rooms.Get().(*room)
	defer r.leave()
	in := r.request(copy(r.in[:], text), &http.Server{})
	if in == nil {
		return nil
	}
	return in.WithContext(context.Background())
}

// Who keeps where a request went, as a record does, keeps none of its secrets.
func TestAddressesAreNoPartOfTheFields(t *testing.T) {
	const text = "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nCookie: secret=1\r\n\r\n"
	r := readPlain([]byte(text))
	// Where the text would begin, if a string were a part of it.
	begin := func(s string) uintptr {
		return uintptr(unsafe.Pointer(unsafe.StringData(s))) - uintptr(strings.Index(text, s))
	}
	for _, kept := range []string{r.Method, r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Host} {
		if begin(kept) == begin(r.Header.Get("Cookie")) {
			t.Errorf("%q is a part of what the cookies are in", kept)
		}
	}
}

// scripted is a connection on which a visitor says a text and hangs up.
type scripted struct {
	net.Conn
	text   *bytes.Reader
	closed chan struct{}
	once   sync.Once
}

func (s *scripted) Read(b []byte) (int, error)       { return s.text.Read(b) }
func (s *scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s *scripted) Close() error                     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// readStandard returns what an http.Server makes of a text.
func readStandard(text []byte) []asked {
	h := &witness{}
	conn := &scripted{text: bytes.NewReader(text), closed: make(chan struct{})}
	rest := newRest()
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&http.Server{Handler: h}).Serve(rest)
	}()
	rest.give(&left{Conn: conn})
	<-conn.closed
	rest.Close()
	<-done
	return h.asked
}

// Whatever the lane takes for a plain request is exactly one to http.Server, and
// says the same.
func FuzzPlainRequests(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := readPlain(text)
		if r == nil {
			return
		}
		got := asked{r.Method, r.Host, r.RequestURI, r.Proto, "", `"" <nil>`, *r.URL, r.Header, r.Trailer, r.ContentLength, r.TransferEncoding, r.Close, r.TLS != nil}
		if want := readStandard(text); len(want) != 1 || !reflect.DeepEqual(got, want[0]) {
			t.Errorf("%q\n%+v\nwant\n%+v", text, got, want)
		}
	})
}

// Whatever is sent, in whatever pieces, is answered as http.Server alone answers it.
func FuzzConnections(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h.text), 0)
		f.Add([]byte(get("/first")+h.text), len(get("/first")))
	}
	f.Add([]byte(get("/first")+"x"), len(get("/first"))) // too little for a mistake
	ours, theirs := &witness{}, &witness{}
	lane, standard := start(f, true, ours), start(f, false, theirs)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if bytes.HasPrefix(text, []byte("PRI")) || bytes.Contains(text, []byte("PRI * ")) {
			return // for which net/http has several answers, by time
		}
		lane.t, standard.t = t, t
		got, want := lane.tell(ours, text, cut), standard.tell(theirs, text, cut)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n%+v\nwant\n%+v", text, got, want)
		}
	})
}

// The one look at the bytes, against the same said slowly.
func FuzzLook(f *testing.F) {
	for _, h := range heads {
		for cut := range min(len(h.text), 50) {
			f.Add([]byte(h.text[:len(h.text)-cut]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := nothing
		switch text := string(b); {
		case !strings.HasPrefix(text, "GET /") && !strings.HasPrefix(text, "HEAD /"):
		case slowlyWhole(text):
			want = whole
		case slowlyWhole(text + "x\r\n\r\n"), slowlyWhole(text + "\n\r\n"), slowlyWhole(text + "\n"):
			want = part
		}
		if got := look(b); got != want {
			t.Errorf("%q: %v, want %v", b, got, want)
		}
	})
}

func slowlyWhole(text string) bool {
	return strings.Index(text, "\r\n\r\n") == len(text)-4 && !strings.Contains(text, "\n ") &&
		!strings.ContainsFunc(strings.ReplaceAll(text, "\r\n", ""), func(r rune) bool { return r < ' ' || r > '~' })
}
