package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// An upstream that answers before it has everything is heard.
func TestEarlyAnswer(t *testing.T) {
	bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
		up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!")
			io.Copy(io.Discard, conn)
		})
		client := with(up.dial, Options{})
		pr, pw := io.Pipe()
		go pw.Write([]byte("first"))
		res, body, err := roundTrip(client, request(t, "POST", pr))
		if err != nil || res.StatusCode != 413 || body != "no!" {
			t.Errorf("%v %q %v", res, body, err)
		}
		// The connection is in the middle of a body: nobody else gets it.
		pw.CloseWithError(errors.New("gave up"))
		res, body, err = roundTrip(client, request(t, "GET", nil))
		if err != nil || body != "no!" || up.conns.Load() != 2 {
			t.Errorf("%v %q %v, %d connections", res, body, err, up.conns.Load())
		}
	})
}

// Both directions at once: every piece is answered before the next is sent.
func TestConversation(t *testing.T) {
	bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "you said "+line)
				rc.Flush()
			}
		}))
		defer srv.Close()
		client := with((&net.Dialer{}).DialContext, Options{})
		pr, pw := io.Pipe()
		req := request(t, "POST", pr)
		req.URL.Host = srv.Listener.Addr().String()
		res, err := client.RoundTrip(req) // while the body has not begun
		if err != nil {
			t.Fatal(err)
		}
		answers := bufio.NewReader(res.Body)
		for i := range 3 {
			fmt.Fprintf(pw, "%d\n", i)
			if line, err := answers.ReadString('\n'); err != nil || line != fmt.Sprintf("you said %d\n", i) {
				t.Fatalf("%q %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(answers); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
		res.Body.Close()
		client.CloseIdleConnections()
	})
}

func TestExpectContinue(t *testing.T) {
	for name, c := range map[string]struct {
		before   string // sent before the body is read
		body     bool   // is read
		theyDiff bool   // net/http sends the body all the same
	}{
		"asked for":         {"HTTP/1.1 100 Continue\r\n\r\n", true, false},
		"not answered":      {"", true, false},
		"refused":           {"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, false},
		"refused, silently": {"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
				got := make(chan string, 1)
				up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(conn, c.before)
					body := make([]byte, 5)
					n, _ := io.ReadFull(r, body)
					got <- string(body[:n])
					if c.body {
						io.WriteString(conn, empty)
					}
					io.Copy(io.Discard, conn)
				})
				client := with(up.dial, Options{ExpectContinueTimeout: 20 * time.Millisecond})
				body := &told{Reader: strings.NewReader("hello"), closed: make(chan struct{})}
				req := request(t, "POST", body)
				req.ContentLength = 5
				req.Header.Set("Expect", "100-continue")
				res, _, err := roundTrip(client, req)
				if err != nil || (res.StatusCode == 200) != c.body {
					t.Fatalf("%v %v", res, err)
				}
				<-body.closed
				if ours, ok := client.(*Client); ok && !c.body && ours.idle() > 0 {
					t.Error("the upstream may wait for the body, and the connection was kept")
				}
				client.CloseIdleConnections()
				if sent := <-got; (sent == "hello") != c.body && !c.theyDiff {
					t.Errorf("%q was sent", sent)
				} else if c.theyDiff && strings.Contains(t.Name(), "ours") && sent != "" {
					t.Errorf("%q was sent though it was refused", sent)
				}
			})
		})
	}
}

// An upstream that takes its time with a head does not get the body in the middle
// of it: whoever writes the body could say there what only Doorward may say.
func TestBodyStaysBehindASlowHead(t *testing.T) {
	for name, wait := range map[string]time.Duration{"it reads in the end": 0, "it has a limit": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer there.Close()
				client := New(Options{ResponseHeaderTimeout: wait, ExpectContinueTimeout: time.Second,
					Dial: func(context.Context, string, string) (net.Conn, error) {
						return &oneWriter{here, make(chan struct{}, 1)}, nil
					}})
				defer client.CloseIdleConnections()
				sent := make(chan string)
				go func() {
					first := make([]byte, 20)
					n, _ := io.ReadFull(there, first)
					time.Sleep(10 * time.Second) // the rest of the head waits
					req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(string(first[:n])), there)))
					if err != nil {
						there.Close()
						sent <- err.Error()
						return
					}
					body, _ := io.ReadAll(req.Body)
					io.WriteString(there, empty)
					sent <- req.Header.Get("Doorward-Assertion") + " " + string(body)
				}()
				const evil = "\r\nDoorward-Assertion: forged\r\n\r\n"
				body := &told{Reader: strings.NewReader(evil), closed: make(chan struct{})}
				req := request(t, "POST", body)
				req.ContentLength = int64(len(evil))
				req.Header = http.Header{"Expect": {"100-continue"}, "Doorward-Assertion": {"genuine"}}
				_, _, err := roundTrip(client, req)
				if got := <-sent; err != nil || got != "genuine "+evil {
					t.Errorf("%q %v", got, err)
				}
				<-body.closed
			})
		})
	}
}

// oneWriter lets one write after the other, as the kernel does; net.Pipe does it
// with a lock that synctest cannot see.
type oneWriter struct {
	net.Conn
	turn chan struct{}
}

func (c *oneWriter) Write(b []byte) (int, error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return c.Conn.Write(b)
}

// Nor does a head that cannot be sent leave the body open.
func TestBodyBehindAHeadThatIsNotSent(t *testing.T) {
	here, there := net.Pipe()
	there.Close()
	client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return here, nil }})
	body := &told{Reader: strings.NewReader("hello"), closed: make(chan struct{})}
	req := request(t, "POST", body)
	req.ContentLength = 5
	req.Header.Set("Expect", "100-continue")
	if _, _, err := roundTrip(client, req); err == nil {
		t.Error("was answered by nobody")
	}
	<-body.closed
}

// told is a body that tells when it is closed.
type told struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *told) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func TestBodyThatBreaks(t *testing.T) {
	broken := errors.New("the visitor left")
	for name, c := range map[string]struct {
		body   io.Reader
		length int64
		want   error // nil: any
	}{
		"in the middle":      {io.MultiReader(strings.NewReader("he"), &failing{broken}), 5, broken},
		"in chunks":          {io.MultiReader(strings.NewReader("he"), &failing{broken}), -1, broken},
		"at once":            {&failing{broken}, 5, broken},
		"ends too early":     {strings.NewReader("he"), 5, nil},
		"ends before it was": {strings.NewReader(""), 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
				up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err == nil {
						t.Error("the upstream takes the body for whole")
					}
				})
				client := with(up.dial, Options{})
				body := &told{Reader: c.body, closed: make(chan struct{})}
				req := request(t, "POST", body)
				req.ContentLength = c.length
				_, _, err := roundTrip(client, req)
				if err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%v", err)
				}
				if e := (*Error)(nil); errors.As(err, &e) && e.NeverSent() {
					t.Error("the body is gone and cannot be sent elsewhere")
				}
				<-body.closed
			})
		})
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// The end of the context ends every wait.
func TestCancellation(t *testing.T) {
	ended := errors.New("access has ended")
	for name, c := range map[string]struct {
		raw  string
		body io.Reader
	}{
		"before the head":         {"", nil},
		"in the head":             {"HTTP/1.1 200 O", nil},
		"after an interim answer": {"HTTP/1.1 103 Early Hints\r\n\r\n", nil},
		"in the content":          {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", nil},
		"in a chunk":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", nil},
		"before the end":          {"HTTP/1.1 200 OK\r\n\r\nhe", nil},
		"while sending":           {"", endless{}},
		"while both":              {"HTTP/1.1 200 OK\r\n\r\nhe", endless{}},
	} {
		t.Run(name, func(t *testing.T) {
			bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
				asked := make(chan bool, 1)
				up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(conn, c.raw)
					asked <- true
					if c.body != nil {
						<-t.Context().Done() // takes nothing, so that sending has to wait
						return
					}
					io.Copy(io.Discard, conn)
				})
				client := with(up.dial, Options{})
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() {
					<-asked
					cancel(ended)
				}()
				_, _, err := roundTrip(client, request(t, "POST", c.body).WithContext(ctx))
				if !errors.Is(err, ended) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	t.Run("before anything", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(ended)
		client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { panic("dialed") }})
		_, err := client.RoundTrip(request(t, "POST", strings.NewReader("x")).WithContext(ctx))
		if e := (*Error)(nil); !errors.Is(err, ended) || !errors.As(err, &e) || !e.NeverSent() {
			t.Errorf("%v", err)
		}
	})
}

// endless is a body without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A connection that the upstream has closed while it was idle costs no request,
// whatever the method.
func TestClosedIdleConnections(t *testing.T) {
	up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(conn, empty) // and hangs up without having said so
	})
	client := New(Options{Dial: up.dial})
	defer client.CloseIdleConnections()
	for i := range 20 {
		if _, _, err := roundTrip(client, request(t, "POST", strings.NewReader("x"))); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		<-up.closes
		up.closes <- struct{}{}
		client.awaitLoud()
	}
}

// idle counts the idle connections.
func (c *Client) idle() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pools {
		n += len(p.idle)
	}
	return n
}

// awaitLoud waits until what the upstream has done to an idle connection is there.
func (c *Client) awaitLoud() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pools {
		for _, cn := range p.idle {
			for cn.usable() {
			}
		}
	}
}

// What an upstream says behind an answer is never taken for the next one, whether
// it comes with the answer or later.
func TestMoreThanAnAnswer(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for name, c := range map[string]struct {
		answer, body string
		later        bool
	}{
		"counted":          {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		"in chunks":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false},
		"nothing":          {"HTTP/1.1 204 No Content\r\n\r\n", "", false},
		"not modified":     {"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", "", false},
		"later":            {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		"later, in chunks": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", true},
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan bool, 1)
			up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if c.later {
						io.WriteString(conn, c.answer)
						<-goOn
						io.WriteString(conn, evil)
					} else {
						io.WriteString(conn, c.answer+evil)
					}
				}
			})
			client := New(Options{Dial: up.dial})
			defer client.CloseIdleConnections()
			for range 3 {
				_, body, err := roundTrip(client, request(t, "GET", nil))
				if err != nil || body != c.body {
					t.Fatalf("%q %v", body, err)
				}
				if c.later {
					goOn <- true
					client.awaitLoud()
				}
			}
		})
	}
}

// blind hides what could be looked into, as on systems where nothing can be.
type blind struct{ net.Conn }

// A request that went over a connection that was closed already is sent again if
// nothing can have come of it, and only then.
func TestSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		method, body string
		again        bool
	}{
		"GET":              {"GET", "", true},
		"HEAD":             {"HEAD", "", true},
		"DELETE":           {"DELETE", "", false},
		"POST":             {"POST", "", false},
		"GET with a body":  {"GET", "x", false},
		"POST with a body": {"POST", "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan string, 100)
			up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
				for i := 0; ; i++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					asked <- req.Method
					if i == 1 {
						return // the second one gets no answer
					}
					io.WriteString(conn, empty)
				}
			})
			client := New(Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				nc, err := up.dial(ctx, network, address)
				return &blind{nc}, err
			}})
			defer client.CloseIdleConnections()
			if _, _, err := roundTrip(client, request(t, "GET", nil)); err != nil {
				t.Fatal(err)
			}
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			_, _, err := roundTrip(client, request(t, c.method, body))
			e := (*Error)(nil)
			if again := err == nil; again != c.again || !again && (!errors.As(err, &e) || e.NeverSent()) {
				t.Errorf("%v", err)
			}
			if n := len(asked); n != 2 && !c.again || n != 3 && c.again {
				t.Errorf("asked %d times", n)
			}
		})
	}
	t.Run("once", func(t *testing.T) {
		up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			if r.Buffered() == 0 {
				return
			}
		})
		client := New(Options{Dial: up.dial})
		if _, err := client.RoundTrip(request(t, "GET", nil)); err == nil || up.conns.Load() != 1 {
			t.Errorf("%v, %d connections", err, up.conns.Load())
		}
	})
}

// broken is a connection that answers once, and then takes nothing any more.
type broken struct {
	script
	asked int
}

func (b *broken) Write(p []byte) (int, error) {
	if b.asked++; b.asked > 1 {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

// Of what could not be sent at all nothing can have come, whatever the method.
func TestNothingCouldBeSent(t *testing.T) {
	dialed := 0
	client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		if dialed++; dialed > 2 {
			return nil, errors.New("refused")
		}
		return &broken{script: script{text: []byte(empty), piece: 100}}, nil
	}})
	for range 2 {
		if _, _, err := roundTrip(client, request(t, "DELETE", nil)); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := roundTrip(client, request(t, "DELETE", nil))
	if e := (*Error)(nil); !errors.As(err, &e) || !e.NeverSent() || dialed != 3 {
		t.Errorf("%v, dialed %d times", err, dialed)
	}
}

func TestNotReached(t *testing.T) {
	refused := errors.New("refused")
	client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, refused }})
	body := &told{Reader: strings.NewReader("x"), closed: make(chan struct{})}
	_, err := client.RoundTrip(request(t, "POST", body))
	if e := (*Error)(nil); !errors.Is(err, refused) || !errors.As(err, &e) || !e.NeverSent() {
		t.Errorf("%v", err)
	}
	<-body.closed
}

// A body of unknown length is looked into only when there is somebody to send it
// to.
func TestNotReachedWithABodyOfUnknownLength(t *testing.T) {
	client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }})
	body := strings.NewReader("x")
	req := request(t, "GET", io.NopCloser(body))
	req.ContentLength = -1
	_, err := client.RoundTrip(req)
	if e := (*Error)(nil); !errors.As(err, &e) || !e.NeverSent() || body.Len() != 1 {
		t.Errorf("%v", err)
	}
}

func TestSwitchedProtocol(t *testing.T) {
	bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
		up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome ")
			io.Copy(conn, r)
			io.WriteString(conn, "!")
		})
		client := with(up.dial, Options{ResponseHeaderTimeout: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		req := request(t, "GET", nil).WithContext(ctx)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := client.RoundTrip(req)
		if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" {
			t.Fatalf("%v %v", res, err)
		}
		cancel() // is for whoever uses the connection to look at
		rwc := res.Body.(io.ReadWriteCloser)
		io.WriteString(rwc, "hello")
		half, ok := rwc.(interface{ CloseWrite() error })
		if !ok {
			t.Fatal("one direction cannot be closed")
		}
		half.CloseWrite()
		if text, err := io.ReadAll(rwc); err != nil || string(text) != "welcome hello!" {
			t.Errorf("%q %v", text, err)
		}
		rwc.Close()
	})
}

// Whoever closes a body ends whoever reads it.
func TestBodyIsClosedWhileItIsRead(t *testing.T) {
	bothClients(t, func(t *testing.T, with func(dial, Options) roundTripper) {
		up := newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
			io.Copy(io.Discard, conn)
		})
		client := with(up.dial, Options{})
		res, err := client.RoundTrip(request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(res.Body, make([]byte, 2))
		ended := make(chan error)
		go func() {
			_, err := res.Body.Read(make([]byte, 10))
			ended <- err
		}()
		res.Body.Close()
		if err := <-ended; err == nil || err == io.EOF {
			t.Error(err)
		}
		res.Body.Close()
	})
}

// An idle connection is closed after its time, the one that was used last is used
// first, and there are never more than the bound.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dialed, open := 0, 0
		client := New(Options{IdleTimeout: time.Minute, IdlePerHost: 3, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			mu.Lock()
			dialed, open = dialed+1, open+1
			mu.Unlock()
			go func() {
				r := bufio.NewReader(theirs)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						break
					}
					time.Sleep(time.Second) // long enough to meet others
					io.WriteString(theirs, empty)
				}
				mu.Lock()
				open--
				mu.Unlock()
			}()
			return ours, nil
		}})
		ask := func(n int) {
			var all sync.WaitGroup
			for range n {
				all.Go(func() {
					if _, _, err := roundTrip(client, request(t, "GET", nil)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			synctest.Wait()
		}
		is := func(when string, wantDialed, wantOpen int) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if dialed != wantDialed || open != wantOpen {
				t.Errorf("%s: %d dialed, %d open", when, dialed, open)
			}
		}
		ask(5)
		is("five at once", 5, 3)
		for range 5 {
			time.Sleep(20 * time.Second)
			ask(1)
		}
		is("one is in use, the others were not for long", 5, 1)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		is("later", 5, 0)
		ask(2)
		client.CloseIdleConnections()
		synctest.Wait()
		is("told to close", 7, 0)
		var under sync.WaitGroup
		under.Go(func() { ask(1) })
		time.Sleep(time.Second / 2)
		client.CloseIdleConnections()
		under.Wait()
		is("told to close while one is in use", 8, 0)
	})
}

// Many at once, of every kind, against net/http's server.
func TestManyAtOnce(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch r.URL.Query().Get("how") {
		case "counted":
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body)
		case "pieces":
			for len(body) > 0 {
				n := min(len(body), 777)
				w.Write(body[:n])
				http.NewResponseController(w).Flush()
				body = body[n:]
			}
		case "trailer":
			w.Header().Set("Trailer", "X-Length")
			w.Write(body)
			w.Header().Set("X-Length", fmt.Sprint(len(body)))
		case "close":
			w.Header().Set("Connection", "close")
			w.Write(body)
		case "abort":
			w.Header().Set("Content-Length", "1000000")
			w.Write(body)
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	client := New(Options{Dial: (&net.Dialer{}).DialContext, IdlePerHost: 4})
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 60 {
				how := []string{"counted", "pieces", "trailer", "close", "abort", "nothing"}[(i+j)%6]
				text := strings.Repeat(fmt.Sprint(i, j, " "), (i*j)%4000)
				body := io.Reader(strings.NewReader(text))
				if j%2 == 0 {
					body = io.NopCloser(body) // of unknown length
				}
				req := request(t, "POST", body)
				req.URL.Host = srv.Listener.Addr().String()
				req.URL.RawQuery = "how=" + how
				ctx, cancel := context.WithCancel(t.Context())
				res, got, err := roundTrip(client, req.WithContext(ctx))
				cancel()
				switch {
				case how == "abort" && err == nil:
					t.Errorf("an answer that was cut off seems whole: %q", got)
				case how == "abort":
				case err != nil:
					t.Errorf("%s %d: %v", how, len(text), err)
				case how == "nothing" && got != "", how != "nothing" && got != text:
					t.Errorf("%s: %d bytes became %d", how, len(text), len(got))
				case how == "trailer" && res.Trailer.Get("X-Length") != fmt.Sprint(len(text)):
					t.Errorf("%v", res.Trailer)
				}
			}
		})
	}
	all.Wait()
}
