package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gatheredPair returns both ends of a connection, of which one gathers.
func gatheredPair(t *testing.T, wrap func(net.Conn) net.Conn) (visitor *net.TCPConn, conn net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := gathering{wrappingListener{inner, wrap}}
	defer l.Close()
	there, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	if conn, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return there.(*net.TCPConn), conn
}

// wrappingListener is a listener whose connections are wrapped.
type wrappingListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (w wrappingListener) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err == nil && w.wrap != nil {
		conn = w.wrap(conn)
	}
	return conn, err
}

func TestGatheringChangesNoByte(t *testing.T) {
	visitor, conn := gatheredPair(t, nil)
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 4<<20)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	go func() {
		for rest := text; len(rest) > 0; {
			most := 1 << random.IntN(17)
			n, err := conn.Write(rest[:min(len(rest), most, 1+random.IntN(most))])
			if err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		conn.Close()
	}()
	if got, err := io.ReadAll(visitor); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d of %d bytes, %v", len(got), len(text), err)
	}
}

// countingWrites counts what is written at once.
type countingWrites struct {
	*net.TCPConn
	writes *atomic.Int64
}

func (c countingWrites) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(b)
}

func TestManyAnswersAreOneWrite(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nothing is gathered here")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var writes atomic.Int64
	visitor, conn := gatheredPair(t, func(c net.Conn) net.Conn { return countingWrites{c.(*net.TCPConn), &writes} })
	for range 100 {
		io.WriteString(conn, "an answer ")
	}
	conn.Close()
	if got, err := io.ReadAll(visitor); err != nil || len(got) != 1000 {
		t.Errorf("%d of 1000 bytes, %v", len(got), err)
	}
	if n := writes.Load(); n > 50 {
		t.Errorf("100 answers were %d writes", n)
	}
}

// crypto/tls says goodbye and sets a deadline that has passed: neither the last of an
// answer nor the goodbye is lost.
func TestGatheredGoodbyesArrive(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	certificates := server.TLS.Certificates
	server.Close()
	l := tls.NewListener(gathering{inner}, &tls.Config{Certificates: certificates})
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.ReadFull(conn, make([]byte, 1))
				for range 10 {
					io.WriteString(conn, "an answer ")
				}
				conn.Close()
			}()
		}
	}()
	for range 100 {
		visitor, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(visitor, "?")
		got, err := io.ReadAll(visitor) // without a goodbye, an unexpected EOF
		visitor.Close()
		if err != nil || len(got) != 100 {
			t.Fatalf("%d of 100 bytes, %v", len(got), err)
		}
	}
}

// A visitor who does not read holds up whoever writes, and nobody who closes.
func TestGatheringHoldsUpWhoeverWritesToASlowVisitor(t *testing.T) {
	for name, end := range map[string]struct {
		how  func(net.Conn) error
		want error
	}{
		"deadline": {func(c net.Conn) error { return c.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"both":     {func(c net.Conn) error { return c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"close":    {net.Conn.Close, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			visitor, conn := gatheredPair(t, nil)
			var written atomic.Int64
			failed := make(chan error)
			go func() {
				for part := make([]byte, 1000); ; {
					n, err := conn.Write(part)
					if written.Add(int64(n)); err != nil {
						failed <- err
						return
					}
				}
			}()
			for before := int64(-1); written.Load() != before || before == 0; time.Sleep(50 * time.Millisecond) {
				before = written.Load()
			}
			if err := end.how(conn); err != nil {
				t.Error(err)
			}
			if err := <-failed; !errors.Is(err, end.want) {
				t.Errorf("writing ended with %v, want %v", err, end.want)
			}
			conn.Close()
			if n, err := io.Copy(io.Discard, visitor); err != nil || n < written.Load() {
				t.Errorf("%d of %d bytes arrived, %v", n, written.Load(), err)
			}
		})
	}
}

func TestGatheringTellsOfAVisitorWhoIsGone(t *testing.T) {
	visitor, conn := gatheredPair(t, nil)
	visitor.SetLinger(0)
	visitor.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	var n int
	var err error
	for err == nil {
		n, err = io.WriteString(conn, "is there anybody?")
	}
	if n != 0 || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d bytes written, %v", n, err)
	}
}
