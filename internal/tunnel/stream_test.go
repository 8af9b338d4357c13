package tunnel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forms are the streams that have both an end and a last word.
var forms = map[string]func(conn net.Conn, early []byte, client bool) Stream{
	"connect-tcp": func(conn net.Conn, early []byte, _ bool) Stream { return NewCapsules(conn, early) },
	"websocket":   NewWebSocket,
}

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// frame makes a frame of data.
func frame(data []byte) []byte { return append(make([]byte, Headroom), data...) }

// relayed is a local program, a client, a door and a target in a row. The
// program and the target are returned.
func relayed(t testing.TB, form func(net.Conn, []byte, bool) Stream) (program, target net.Conn, ends chan error) {
	program, local := pair(t)
	near, far := pair(t)
	server, target := pair(t)
	ends = make(chan error, 2)
	traffic := func() *Traffic { return &Traffic{new(atomic.Int64), new(atomic.Int64)} }
	go func() { ends <- Relay(form(near, nil, true), TCP(local), traffic()) }()
	go func() { ends <- Relay(form(far, nil, false), TCP(server), traffic()) }()
	return program, target, ends
}

// Bytes arrive whole, and one direction may end long before the other.
func TestHalvesEndByThemselves(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			program, target, ends := relayed(t, form)
			data := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
			go func() {
				program.Write(data)
				program.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(target)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("the target got %d bytes, %v", len(got), err)
			}
			go func() {
				target.Write(data)
				target.Write([]byte("."))
				target.Close()
			}()
			if got, err = io.ReadAll(program); err != nil || len(got) != len(data)+1 {
				t.Fatalf("the program got %d bytes, %v", len(got), err)
			}
			for range 2 {
				if err := <-ends; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What breaks off in the middle breaks off at the other end, too: nobody takes a
// part for the whole.
func TestTruncationIsVisible(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			program, target, ends := relayed(t, form)
			program.Write([]byte("a part"))
			part := make([]byte, 6)
			if _, err := io.ReadFull(target, part); err != nil {
				t.Fatal(err)
			}
			program.(*net.TCPConn).SetLinger(0)
			program.Close()
			if rest, err := io.ReadAll(target); err == nil {
				t.Errorf("the target takes %q for the whole", append(part, rest...))
			}
			for range 2 {
				if err := <-ends; err == nil {
					t.Error("one half noticed nothing")
				}
			}
		})
	}
}

// The other side learns why a tunnel ends, and nothing follows.
func TestLastWords(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			client, server := form(near, nil, true), form(far, nil, false)
			if err := server.Send(frame([]byte("before"))); err != nil {
				t.Fatal(err)
			}
			server.End("token_revoked", time.Second)
			server.End("shutting_down", time.Second)
			if err := server.Send(frame([]byte("after"))); err == nil {
				t.Error("something follows the last words")
			}
			server.Close()
			got, err := io.ReadAll(client)
			if ended, ok := errors.AsType[*Ended](err); !ok || ended.Word != "token_revoked" || string(got) != "before" {
				t.Errorf("%q, %v", got, err)
			}
			if string(ReasonOf(err)) != "token_revoked" {
				t.Errorf("%q", ReasonOf(err))
			}
		})
	}
}

// stillConn reads from bytes and remembers what is written.
type stillConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *stillConn) Read(b []byte) (int, error)         { return c.in.Read(b) }
func (c *stillConn) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c *stillConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *stillConn) Close() error                       { return nil }

func still(in []byte) *stillConn { return &stillConn{in: bytes.NewReader(in)} }

func TestCapsulesOnTheWire(t *testing.T) {
	conn := still(nil)
	s := NewCapsules(conn, nil)
	s.Send(frame([]byte("hello")))
	s.CloseWrite()
	if got := hex.EncodeToString(conn.out.Bytes()); got != "a028d7f28000000568656c6c6f"+"a028d7f300" {
		t.Errorf("%s", got)
	}
	for in, want := range map[string]string{
		"a028d7f205" + "68656c6c6f" + "a028d7f300":                           "hello EOF",
		"a028d7f2" + "4005" + "68656c6c6f" + "a028d7f30121":                  "hello! EOF",
		"00" + "03" + "010203" + "a028d7f20161" + "17" + "00" + "a028d7f300": "a EOF", // unknown ones are skipped
		"a028d7f205" + "6865":     "he the tunnel broke off",
		"a028d7f20161":            "a the tunnel broke off",
		"a028":                    " the tunnel broke off",
		"00" + "c000000100000000": " a capsule that is too long",
		"a6d0a3b1" + "40ff":       " a reason that is too long",
	} {
		raw, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(NewCapsules(still(nil), raw))
		text := string(got) + " EOF"
		if err != nil {
			text = string(got) + " " + err.Error()
		}
		if text != want {
			t.Errorf("%s: %q, want %q", in, text, want)
		}
	}
}

func TestWebSocketOnTheWire(t *testing.T) {
	for in, want := range map[string]string{
		"8205" + "68656c6c6f" + "8200":                            "hello EOF",
		"0203" + "68656c" + "8900" + "8002" + "6c6f" + "880203e8": "hello EOF",
		"8101" + "61":                      " a frame that does not follow RFC 6455", // text
		"8285" + "00000000" + "68656c6c6f": " a frame that does not follow RFC 6455", // a masked one from a server
		"c201" + "61":                      " a frame that does not follow RFC 6455",
		"8001" + "61":                      " a frame that does not follow RFC 6455", // continues nothing
		"0201" + "61" + "8201" + "62":      "a a frame that does not follow RFC 6455",
		"88" + "7e" + "0080":               " a frame that does not follow RFC 6455",
		"0900":                             " a frame that does not follow RFC 6455",
		"82" + "7f" + "8000000000000000":   " a frame that does not follow RFC 6455",
		"8205" + "6865":                    "he the tunnel broke off",
		"8801" + "03":                      " a frame that does not follow RFC 6455",
		"880203eb":                         " the tunnel broke off",
	} {
		raw, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(NewWebSocket(still(nil), raw, true))
		text := string(got) + " EOF"
		if err != nil {
			text = string(got) + " " + err.Error()
		}
		if text != want {
			t.Errorf("%s: %q, want %q", in, text, want)
		}
	}
	if got := AcceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 §1.3
		t.Errorf("%s", got)
	}
}

func TestTargetOf(t *testing.T) {
	for path, want := range map[string]string{
		Template + "a.example/22/": "a.example:22", Template + "a.example/22": "a.example:22", Template + "2001%3Adb8%3A%3A1/22/": "[2001:db8::1]:22",
		Template: "", Template + "a/22/x/": "", Template + "a%2Fb/22/": "", Template + "[::1]/22/": "", Template + "fe80%3A%3A1%25eth0/22/": "", Template + "/22/": "",
	} {
		if got, ok := TargetOf(path); got != want || !ok {
			t.Errorf("%s: %q", path, got)
		}
	}
	if _, ok := TargetOf("/app"); ok {
		t.Error("every path is a tunnel")
	}
	for _, host := range []string{"a.example", "2001:db8::1"} {
		if got, ok := TargetOf(pathOf(host, "22")); !ok || got != net.JoinHostPort(host, "22") {
			t.Errorf("%s became %s", host, got)
		}
	}
}

// Whatever arrives, no more comes out than went in, and nothing panics.
func FuzzCapsules(f *testing.F) {
	f.Add([]byte("\xa0\x28\xd7\xf2\x05hello\xa0\x28\xd7\xf3\x00"))
	f.Add([]byte("\xa6\xd0\xa3\xb1\x03abc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, _ := io.ReadAll(NewCapsules(still(in), nil))
		if len(got) > len(in) {
			t.Errorf("%d bytes of %d", len(got), len(in))
		}
		conn := still(nil)
		NewCapsules(conn, nil).Send(frame(got))
		again := make([]byte, len(got))
		if n, err := io.ReadFull(NewCapsules(still(conn.out.Bytes()), nil), again); err != nil && len(got) > 0 || n != len(got) || !bytes.Equal(got, again) {
			t.Errorf("sent and read: %d of %d, %v", n, len(got), err)
		}
	})
}

func FuzzWebSocket(f *testing.F) {
	f.Add([]byte("\x82\x85\x01\x02\x03\x04hello\x82\x80\x00\x00\x00\x00"), false)
	f.Add([]byte("\x82\x05hello\x89\x00\x88\x02\x03\xe8"), true)
	f.Fuzz(func(t *testing.T, in []byte, client bool) {
		got, _ := io.ReadAll(NewWebSocket(still(in), nil, client))
		if len(got) > len(in) {
			t.Errorf("%d bytes of %d", len(got), len(in))
		}
		conn := still(nil)
		NewWebSocket(conn, nil, client).Send(frame(got))
		again := make([]byte, len(got))
		if n, err := io.ReadFull(NewWebSocket(still(conn.out.Bytes()), nil, !client), again); err != nil && len(got) > 0 || n != len(got) || !bytes.Equal(got, again) {
			t.Errorf("sent and read: %d of %d, %v", n, len(got), err)
		}
	})
}

type readWriter struct {
	io.Reader
	io.Writer
}

func FuzzSOCKS(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x09a.example\x00\x16"))
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x01.ex")) // the root has no address
	f.Add([]byte("\x05\x02\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x16"))
	f.Fuzz(func(t *testing.T, in []byte) {
		target, err := readSOCKS(readWriter{bytes.NewReader(in), io.Discard})
		if err != nil {
			return
		}
		if again, err := Target(target); err != nil || again != target {
			t.Errorf("%q is not canonical: %q, %v", target, again, err)
		}
	})
}
