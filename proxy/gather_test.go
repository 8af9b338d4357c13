package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gatheredPair returns both ends of a connection, of which one gathers.
func gatheredPair(t *testing.T) (visitor *net.TCPConn, conn net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return connect(t, gathering{l})
}

func TestGatheringChangesNoByte(t *testing.T) {
	visitor, conn := gatheredPair(t)
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
	writes atomic.Int64
}

func (c *countingWrites) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(b)
}

func TestManyAnswersAreOneWrite(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nothing is gathered here")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	visitor, conn := gatheredPair(t)
	gathers := conn.(*gatheringConn)
	counts := &countingWrites{TCPConn: gathers.Conn.(*net.TCPConn)}
	gathers.Conn = counts
	for range 100 {
		io.WriteString(conn, "an answer ")
	}
	conn.Close()
	if got, err := io.ReadAll(visitor); err != nil || len(got) != 1000 {
		t.Errorf("%d of 1000 bytes, %v", len(got), err)
	}
	if n := counts.writes.Load(); n > 50 {
		t.Errorf("100 answers were %d writes", n)
	}
}

// crypto/tls says goodbye and sets a deadline that has passed: neither the last of an
// answer nor the goodbye is lost.
func TestGatheredGoodbyesArrive(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{newAuthority(t).sign(t, x509.Certificate{})}}
	for range 100 {
		there, here := gatheredPair(t)
		conn, visitor := tls.Server(here, config), tls.Client(there, &tls.Config{InsecureSkipVerify: true})
		go func() {
			io.ReadFull(conn, make([]byte, 1))
			for range 10 {
				io.WriteString(conn, "an answer ")
			}
			conn.Close()
		}()
		io.WriteString(visitor, "?")
		got, err := io.ReadAll(visitor) // without a goodbye, an unexpected EOF
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
			visitor, conn := gatheredPair(t)
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
	visitor, conn := gatheredPair(t)
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
