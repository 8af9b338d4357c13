package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Split says which targets go through the door and what becomes of others.
type Split struct {
	// Direct connects to what no tunnel is for. Nil: it is refused.
	Direct func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	granted *Granted
	asked   time.Time
}

// grantsGood is how long a list of tunnels is relied on.
const grantsGood = 30 * time.Second

// tunnelled reports whether a target goes through the door. Without Direct all
// do: the door says itself what it refuses, and why.
func (s *Split) tunnelled(ctx context.Context, d *Door, target string) (bool, error) {
	if s == nil || s.Direct == nil {
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.granted == nil || time.Since(s.asked) > grantsGood {
		granted, err := d.Granted(ctx)
		if err != nil {
			return false, err
		}
		s.granted, s.asked = granted, time.Now()
	}
	for _, g := range s.granted.Tunnels {
		if g.Covers(target) {
			return true, nil
		}
	}
	return false, nil
}

// behind reports whether a reason is about what is behind the door, and not
// about who may go there.
func behind(why access.Reason) bool {
	switch why {
	case access.UpstreamUnreachable, access.UpstreamTimeout, access.TargetProhibited, access.UpstreamBroken:
		return true
	}
	return false
}

// lead takes a local connection to a target. answer tells the program how it
// went, before any bytes.
func (l *Local) lead(ctx context.Context, conn net.Conn, target string, answer func(error) error) {
	through, err := l.Split.tunnelled(ctx, l.Door, target)
	if err == nil && !through {
		l.direct(ctx, conn, target, answer)
		return
	}
	var s Stream
	if err == nil {
		s, err = l.Door.Open(ctx, target)
	}
	if err != nil {
		answer(err)
		if ctx.Err() == nil {
			l.Tell(Explain(target, err))
		}
		return
	}
	if answer(nil) != nil {
		s.Abort()
		return
	}
	l.run(ctx, s, TCP(conn), target)
}

// direct connects past the door.
func (l *Local) direct(ctx context.Context, conn net.Conn, target string, answer func(error) error) {
	other, err := l.Split.Direct(ctx, "tcp", target)
	if err != nil {
		answer(err)
		return
	}
	if answer(nil) != nil {
		other.Close()
		return
	}
	// NewPlain is a connection as it is, which is what this is about.
	l.run(ctx, NewPlain(other, nil), TCP(conn), target)
}

// HTTPProxy takes one local connection, of a program that knows it as an HTTP
// proxy, to where it asks for with CONNECT.
func (l *Local) HTTPProxy(ctx context.Context, conn net.Conn) {
	conn.SetDeadline(time.Now().Add(handshakePatience))
	in := bufio.NewReaderSize(conn, 4<<10)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if req.Method != http.MethodConnect {
		say(conn, http.StatusNotImplemented, "This proxy opens tunnels by CONNECT, for https and other protocols, and fetches no pages.")
		return
	}
	target, err := Target(req.RequestURI)
	if err != nil {
		say(conn, http.StatusBadRequest, err.Error())
		return
	}
	conn.SetDeadline(time.Time{})
	early, err := in.Peek(in.Buffered())
	if err != nil {
		return
	}
	early = append([]byte(nil), early...)
	l.lead(ctx, &earlyConn{conn, earlyReader{early, conn}}, target, func(err error) error {
		if err == nil {
			_, err := fmt.Fprint(conn, "HTTP/1.1 200 Connection Established\r\n\r\n")
			return err
		}
		status := http.StatusBadGateway
		if r, ok := errors.AsType[*Refusal](err); ok && !behind(r.Reason) {
			status = http.StatusForbidden
		}
		say(conn, status, Explain(target, err))
		return nil
	})
}

// say answers with a text and nothing more.
func say(conn net.Conn, status int, text string) {
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), len(text)+1, text)
}

// earlyConn is a connection of which something has been read already.
type earlyConn struct {
	net.Conn
	in earlyReader
}

// Read implements net.Conn.
func (c *earlyConn) Read(b []byte) (int, error) { return c.in.Read(b) }

// CloseWrite ends one direction.
func (c *earlyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
