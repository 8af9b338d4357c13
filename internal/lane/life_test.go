package lane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A visitor who leaves ends the context of the request, also late.
func TestVisitorWhoLeavesEndsTheRequest(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context){
		"waiting": func(ctx context.Context) { <-ctx.Done() },
		"asking now and then": func(ctx context.Context) {
			for ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
		},
		"a derived context": func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			<-ctx.Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, lane bool) {
				asked, over := make(chan bool), make(chan error)
				s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked <- inLane(w)
					wait(r.Context())
					over <- r.Context().Err()
				}))
				v := s.visitor().say(get("/"))
				if <-asked != lane {
					t.Error("somebody else serves it")
				}
				v.Close()
				if err := <-over; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// What a visitor sends while an answer takes its time is the next request, or what
// comes before one, and ends nothing.
func TestWhatComesMeanwhileIsKept(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		asked, go_ := make(chan struct{}), make(chan struct{})
		s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				asked <- struct{}{}
				<-go_
				if r.Context().Err() != nil {
					t.Error(r.Context().Err())
				}
			}
			where(w, r)
		}))
		v := s.visitor()
		for range 2 {
			v.say(get("/slow"))
			<-asked
			<-time.After(3 * watchAfter) // somebody looks
			v.say(get("/next")[:10])
			go_ <- struct{}{}
			if _, body := v.hear("GET"); !strings.HasSuffix(body, " /slow") {
				t.Errorf("%q", body)
			}
			v.say(get("/next")[10:])
			if _, body := v.hear("GET"); !strings.HasSuffix(body, " /next") {
				t.Errorf("%q", body)
			}
		}
	})
}

// Answers that take some time are like others, however often somebody has begun to
// look for the visitor.
func TestSlowAnswersOfOneConnection(t *testing.T) {
	s := start(t, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-time.After(watchAfter + time.Duration(len(r.URL.Path)-8)*time.Millisecond/4)
		where(w, r)
	}))
	v := s.visitor()
	for n := range 16 {
		v.say(get("/" + strings.Repeat("x", n)))
		if _, body := v.hear("GET"); !strings.HasPrefix(body, "lane /") {
			t.Errorf("%q", body)
		}
	}
}

// The context of a request ends with its handler, and knows what http.Server tells.
func TestContexts(t *testing.T) {
	type key struct{}
	both(t, func(t *testing.T, lane bool) {
		got := make(chan *http.Request, 1)
		s := start(t, lane, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if err := r.Context().Err(); err != nil {
				t.Error(err)
			}
			got <- r
		}), func(h *http.Server) {
			h.BaseContext = func(l net.Listener) context.Context {
				return context.WithValue(context.Background(), key{}, "base "+l.Addr().String())
			}
			h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, key{}, fmt.Sprint(ctx.Value(key{}), " conn ", c.LocalAddr()))
			}
		})
		v := s.visitor()
		for _, text := range []string{get("/1"), get("/2"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", get("/3")} {
			v.say(text).hear("GET")
			r := <-got
			ctx := r.Context()
			if ctx.Value(http.ServerContextKey) != s.http || fmt.Sprint(ctx.Value(http.LocalAddrContextKey)) != s.addr ||
				ctx.Value(key{}) != "base "+s.addr+" conn "+s.addr || r.RemoteAddr != v.LocalAddr().String() {
				t.Errorf("%q: %v", text, ctx)
			}
			<-ctx.Done()
		}
	})
}

// Panics end their connection, and nothing else.
func TestPanics(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/bug":
				panic("a bug")
			}
		}))
		for _, path := range []string{"/abort", "/bug"} {
			v := s.visitor().say(get(path))
			if _, err := v.text.ReadByte(); err != io.EOF {
				t.Errorf("%s: %v", path, err)
			}
		}
		if log := s.log.String(); strings.Count(log, "http: panic serving") != 1 || !strings.Contains(log, "a bug\ngoroutine ") {
			t.Errorf("%q", log)
		}
		s.visitor().say(get("/")).hear("GET")
	})
}

// A stream arrives as it is flushed, and a visitor who reads nothing does not hold it
// beyond its deadline. The next request has none.
func TestStreams(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		more, over := make(chan string), make(chan error, 1)
		s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			switch r.URL.Path {
			case "/stream":
				w.Header().Set("Content-Type", "text/event-stream")
				for text := range more {
					io.WriteString(w, text)
					control.Flush()
				}
			case "/deaf":
				control.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				for {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						<-r.Context().Done()
						over <- err
						return
					}
				}
			case "/timed":
				control.SetWriteDeadline(time.Unix(1, 0))
				control.SetWriteDeadline(time.Now().Add(time.Hour))
			}
		}))
		v := s.visitor().say(get("/stream"))
		more <- "data: 0\n\n"
		res, err := http.ReadResponse(v.text, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := bufio.NewReader(res.Body)
		for n := range 3 {
			for _, want := range []string{fmt.Sprintf("data: %d\n", n), "\n"} {
				if line, err := body.ReadString('\n'); line != want || err != nil {
					t.Errorf("%q, %v", line, err)
				}
			}
			if n < 2 {
				more <- fmt.Sprintf("data: %d\n\n", n+1)
			}
		}
		close(more)
		if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		v.say(get("/timed")).hear("GET")
		s.visitor().say(get("/deaf"))
		if err := <-over; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// The deadline for reading that a handler sets ends its request, whenever it is set.
func TestReadDeadlineEndsTheRequest(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		for _, wait := range []time.Duration{0, 3 * watchAfter} {
			s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-time.After(wait)
				if err := http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)); err != nil {
					t.Error(err)
				}
				<-r.Context().Done()
			}))
			v := s.visitor().say(get("/"))
			if v.hear("GET"); lane {
				v.ended()
			}
		}
	})
}

// Connections that say nothing, or not enough, end in time.
func TestTimeouts(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		short := func(h *http.Server) { h.ReadHeaderTimeout, h.IdleTimeout = 50*time.Millisecond, time.Hour }
		s := start(t, lane, where, short)
		s.visitor().ended()
		v := s.visitor().say(get("/")[:20])
		v.hear("GET") // 400
		v.ended()
		v = s.visitor().say(get("/"))
		v.hear("GET")
		v.say(get("/")[:20]).hear("GET")
		v.ended()

		s = start(t, lane, where, func(h *http.Server) { h.ReadHeaderTimeout, h.IdleTimeout = time.Hour, 50*time.Millisecond })
		v = s.visitor().say(get("/"))
		v.hear("GET")
		v.ended()
		v = s.visitor().say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		v.hear("POST")
		v.ended()

		s = start(t, lane, where)
		v = s.visitor()
		for range 3 {
			v.say(get("/")).hear("GET")
		}
	})
}

// A head gets no more time by leaving the lane; what follows it does.
func TestTheTimeOfAHeadIsOne(t *testing.T) {
	conn := &deadlines{}
	by := time.Now().Add(time.Minute)
	c := &left{Conn: conn, by: by}
	c.SetReadDeadline(by.Add(time.Hour))
	c.SetReadDeadline(by.Add(time.Hour))
	c.SetReadDeadline(time.Time{})
	if len(conn.set) != 3 || conn.set[0] != by || conn.set[1] != by.Add(time.Hour) || !conn.set[2].IsZero() {
		t.Error(conn.set)
	}
}

type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

// A busy connection has its deadline moved now and then only, and never too early.
func TestDeadlinesMoveSeldom(t *testing.T) {
	set := &deadlines{}
	c := &conn{Conn: set}
	for range 1000 {
		c.renew(time.Minute)
		if time.Until(c.deadline) < time.Minute {
			t.Fatal(c.deadline)
		}
	}
	if len(set.set) > 20 {
		t.Errorf("set %d times", len(set.set))
	}
	c.renew(time.Second)
	if d := time.Until(c.deadline); d > time.Second+time.Second/8 || len(set.set) < 2 {
		t.Error(d)
	}
	if c.renew(0); !set.set[len(set.set)-1].IsZero() {
		t.Error(set.set)
	}
}

// states counts what the hook of a server is told.
type states struct {
	mu    sync.Mutex
	count map[http.ConnState]int
	open  map[net.Conn]bool
	wrong []string
	left  chan struct{} // something has ended
}

func newStates() *states {
	return &states{count: map[http.ConnState]int{}, open: map[net.Conn]bool{}, left: make(chan struct{}, 100)}
}

func (s *states) note(c net.Conn, to http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[to]++
	if (to == http.StateNew) == s.open[c] {
		s.wrong = append(s.wrong, fmt.Sprintf("%T is %v", c, to))
	}
	switch to {
	case http.StateNew:
		s.open[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(s.open, c)
		s.left <- struct{}{}
	}
}

// Whoever serves a connection, it begins once and ends once.
func TestHooksAreCalledOnce(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		all := newStates()
		s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hijack" {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
			}
		}), func(h *http.Server) { h.ConnState = all.note })
		s.visitor().Close()
		<-all.left
		for _, last := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "nonsense\r\n\r\n", "GET",
			"GET /hijack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"} {
			v := s.visitor()
			v.say(get("/")).hear("GET")
			v.say(last)
			v.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, v.text)
			<-all.left
		}
		all.mu.Lock()
		defer all.mu.Unlock()
		if all.count[http.StateNew] != 6 || all.count[http.StateClosed] != 5 || all.count[http.StateHijacked] != 1 || len(all.open) > 0 || len(all.wrong) > 0 {
			t.Errorf("%v, open %v, %v", all.count, all.open, all.wrong)
		}
	})
}

// Shutdown closes what is idle at once, lets what is not be answered, and says so to
// the visitor.
func TestShutdown(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		asked, go_ := make(chan struct{}), make(chan struct{})
		s := start(t, lane, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				asked <- struct{}{}
				<-go_
			}
		}))
		idle, busy, beyond := s.visitor(), s.visitor(), s.visitor()
		idle.say(get("/")).hear("GET")
		beyond.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").hear("POST") // in net/http
		busy.say(get("/slow"))
		<-asked
		shutdown := s.http.Shutdown
		if lane {
			shutdown = s.lane.Shutdown
		}
		over := make(chan error, 1)
		go func() { over <- shutdown(context.Background()) }()
		idle.ended()
		beyond.ended()
		if err := <-s.done; err != http.ErrServerClosed {
			t.Error(err)
		}
		if _, err := net.Dial("tcp", s.addr); err == nil {
			t.Error("it still accepts")
		}
		select {
		case err := <-over:
			t.Errorf("somebody was not waited for: %v", err)
		default:
		}
		go_ <- struct{}{}
		if res, _ := busy.hear("GET"); !res.Close {
			t.Errorf("%+v", res)
		}
		busy.ended()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if l, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Error(err)
		} else if lane && s.lane.Serve(l) != http.ErrServerClosed {
			t.Error("it serves again")
		}
	})
}

// Shutdown has a limit, Close has none.
func TestShutdownThatTakesTooLong(t *testing.T) {
	both(t, func(t *testing.T, lane bool) {
		asked := make(chan struct{})
		s := start(t, lane, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
		}))
		v := s.visitor().say(get("/"))
		<-asked
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		shutdown, end := s.http.Shutdown, s.http.Close
		if lane {
			shutdown, end = s.lane.Shutdown, s.lane.Close
		}
		if err := shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		end()
		v.ended()
	})
}

// A listener that is closed by somebody else, because another process has it now, ends
// Serve, and neither the connections nor their way out of the lane.
func TestConnectionsOutliveTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(&http.Server{Handler: where})
	defer s.Close()
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	at := &served{t: t, addr: l.Addr().String()}
	v := at.visitor()
	v.say(get("/1")).hear("GET")
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for _, ask := range []struct{ text, want string }{
		{get("/2"), "lane /2"},
		{"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "net/http /3"},
	} {
		if _, body := v.say(ask.text).hear("GET"); body != ask.want {
			t.Errorf("%q", body)
		}
	}
}

// Whoever closes the http.Server itself ends the lane too.
func TestTheServerEndsTheLane(t *testing.T) {
	s := start(t, true, where)
	s.visitor().say(get("/")).hear("GET")
	s.http.Close()
	if err := <-s.done; err != http.ErrServerClosed {
		t.Error(err)
	}
}

// HTTP/2 from the start, and a WebSocket behind a plain request, are net/http's.
func TestOtherProtocols(t *testing.T) {
	s := start(t, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			where(w, r)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, rw)
		if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			t.Errorf("%T ends no direction", conn)
		}
		if tcp, ok := conn.(interface{ SetLinger(int) error }); !ok || tcp.SetLinger(0) != nil {
			t.Errorf("%T cannot be cut", conn)
		}
	}), func(h *http.Server) {
		h.Protocols = new(http.Protocols)
		h.Protocols.SetHTTP1(true)
		h.Protocols.SetUnencryptedHTTP2(true)
	})
	v := s.visitor()
	v.say(get("/")).hear("GET")
	v.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
	if res, err := http.ReadResponse(v.text, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", res, err)
	}
	v.say(", you")
	v.Conn.(*net.TCPConn).CloseWrite()
	if said, err := io.ReadAll(v.text); string(said) != "hello, you" || err != nil {
		t.Errorf("%q, %v", said, err)
	}

	client := &http.Transport{Protocols: new(http.Protocols)}
	client.Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	req, _ := http.NewRequest(http.MethodGet, "http://"+s.addr+"/h2", nil)
	res, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "net/http /h2" || res.ProtoMajor != 2 || err != nil {
		t.Errorf("%q, %s, %v", body, res.Proto, err)
	}
}

// Nothing in the lane can be hijacked.
func TestPlainRequestsCannotBeHijacked(t *testing.T) {
	s := start(t, true, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Error(err)
		}
	}))
	s.visitor().say(get("/")).hear("GET")
}

// A unix socket has a lane as well; what is no socket, or a server that has limits the
// lane does not know, has none.
func TestWhoHasALane(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*http.Server)
		wrap func(net.Listener) net.Listener
		want string
	}{
		"a socket":      {nil, nil, "lane /"},
		"a wrapped one": {nil, func(l net.Listener) net.Listener { return wrapped{l} }, "net/http /"},
		"ReadTimeout":   {func(h *http.Server) { h.ReadTimeout = time.Hour }, nil, "net/http /"},
		"WriteTimeout":  {func(h *http.Server) { h.WriteTimeout = time.Hour }, nil, "net/http /"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			if c.wrap != nil {
				l = c.wrap(l)
			}
			h := &http.Server{Handler: where}
			if c.edit != nil {
				c.edit(h)
			}
			s := New(h)
			defer s.Close()
			go s.Serve(l)
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			v := &visitor{conn, t, bufio.NewReader(conn)}
			if _, body := v.say(get("/")).hear("GET"); body != c.want {
				t.Errorf("%q", body)
			}
		})
	}
}

type wrapped struct{ net.Listener }

func (w wrapped) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{conn}, nil
}

// A listener that fails for a moment is tried again, one that fails for good is not.
func TestListenerThatFails(t *testing.T) {
	gone := errors.New("gone")
	s := New(&http.Server{Handler: where, ErrorLog: log.New(io.Discard, "", 0)})
	defer s.Close()
	l := &failing{errs: []error{passing{}, passing{}, gone}}
	if err := s.Serve(l); err != gone || len(l.errs) > 0 {
		t.Error(err, l.errs)
	}
}

type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func (f *failing) Close() error   { return nil }
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }

type passing struct{ error }

func (passing) Error() string   { return "too many open files" }
func (passing) Temporary() bool { return true }

// Many visitors who come, go and return at once see each their own answers.
func TestManyVisitors(t *testing.T) {
	s := start(t, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat(r.URL.Path, 1+len(r.URL.Path)*40))
	}))
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for m := range 20 {
				v := s.visitor()
				for k := range 10 {
					path := fmt.Sprintf("/%d/%d/%d", n, m, k)
					if _, body := v.say(get(path)).hear("GET"); body != strings.Repeat(path, 1+len(path)*40) {
						t.Errorf("%s: %.100q", path, body)
					}
				}
				v.Close()
			}
		})
	}
	all.Wait()
}
