package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
)

// Patiently calls f again and again, with growing pauses, while the door cannot be
// reached or is closing, until ctx ends. waiting is told before the first pause.
func (d *Door) Patiently(ctx context.Context, waiting func(error), f func(context.Context) error) error {
	pause := firstPause
	for {
		err := f(ctx)
		if err == nil || !passing(err) {
			return err
		}
		if pause == firstPause {
			waiting(err)
		}
		if d.Wait(ctx, pause/2+rand.N(pause/2+1)) != nil {
			return err
		}
		pause = min(2*pause, longPause)
	}
}

// openPatiently is Open for a local program, which waits for a door that is away.
func (l *Local) openPatiently(ctx context.Context) (s Stream, err error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	err = l.Door.Patiently(ctx, func(err error) { l.Tell(err.Error() + "; trying again") }, func(ctx context.Context) (err error) {
		s, err = l.Door.Open(ctx, l.Target)
		return err
	})
	return s, err
}

// passing reports whether an error may be over in a moment.
func passing(err error) bool {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Status == http.StatusServiceUnavailable && r.Reason == access.ShuttingDown
	}
	gone, ok := errors.AsType[*Unreachable](err)
	return ok && !errors.Is(gone, errNotPassed) && !untrusted(gone)
}

// Local is a place on this machine where programs find a tunnel.
type Local struct {
	Door *Door
	// Target is where everything leads; empty where each connection says so.
	Target string
	// Split says what goes through the door where each connection says where it
	// leads. Nil: everything.
	Split *Split
	// Tell takes what a person has to read. May be called by several goroutines.
	Tell func(string)

	Open     atomic.Int64 // tunnels at the moment
	Up, Down atomic.Int64 // bytes, of all
}

// openPatience is how long a local program is kept waiting for a door that
// cannot be reached.
const openPatience = time.Minute

// Serve takes connections until ctx ends and carries each with handle.
func Serve(ctx context.Context, l net.Listener, handle func(context.Context, net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			if wait(ctx, firstPause) != nil { // too many files, most likely
				return nil
			}
			continue
		}
		all.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			handle(ctx, conn)
		})
	}
}

// Carry takes one local connection to the target.
func (l *Local) Carry(ctx context.Context, conn net.Conn) {
	s, err := l.openPatiently(ctx)
	if err != nil {
		TCP(conn).Abort()
		if ctx.Err() == nil {
			l.Tell(Explain(l.Target, err))
		}
		return
	}
	l.run(ctx, s, TCP(conn), l.Target)
}

// run relays and counts.
func (l *Local) run(ctx context.Context, s Stream, c Conn, target string) error {
	l.Open.Add(1)
	defer l.Open.Add(-1)
	stop := context.AfterFunc(ctx, func() {
		s.Abort()
		c.Abort()
	})
	defer stop()
	// From here, up is what the local program sends.
	return Relay(&telling{s, ctx, l, target}, c, &Traffic{Up: &l.Down, Down: &l.Up})
}

// telling tells why a tunnel broke off before the local program notices that it
// did: ssh, for one, ends whoever carries its connection at once.
type telling struct {
	Stream
	ctx    context.Context
	local  *Local
	target string
}

// Read implements Stream.
func (s *telling) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err != nil && err != io.EOF && s.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		s.local.Tell(Explain(s.target, err))
	}
	return n, err
}

// Stdio carries what a program says by the standard input and output, as ssh
// does with a ProxyCommand. opened tells whether there was a tunnel.
func (l *Local) Stdio(ctx context.Context, in io.Reader, out io.WriteCloser) (opened bool, err error) {
	s, err := l.openPatiently(ctx)
	if err != nil {
		return false, err
	}
	read, write := io.Pipe()
	go func() {
		// The standard input cannot be woken up, so this goroutine may outlast the
		// tunnel, though not the program.
		buffer := make([]byte, busyBytes)
		_, err := io.CopyBuffer(struct{ io.Writer }{write}, struct{ io.Reader }{in}, buffer)
		write.CloseWithError(err)
	}()
	return true, l.run(ctx, s, &stdio{in: read, out: out}, l.Target)
}

// stdio is the local side of Stdio.
type stdio struct {
	in  *io.PipeReader
	out io.WriteCloser
}

// Read implements Conn.
func (s *stdio) Read(b []byte) (int, error) { return s.in.Read(b) }

// Write implements Conn.
func (s *stdio) Write(b []byte) (int, error) { return s.out.Write(b) }

// CloseWrite implements Conn.
func (s *stdio) CloseWrite() error { return s.out.Close() }

// Abort implements Conn.
func (s *stdio) Abort() {
	s.in.CloseWithError(net.ErrClosed)
	s.out.Close()
}

// Close implements Conn.
func (s *stdio) Close() error {
	s.in.Close()
	s.out.Close()
	return nil
}

// Summary says what went through, for a person.
func (l *Local) Summary() string {
	return fmt.Sprintf("%d open, %s sent, %s received", l.Open.Load(), size(l.Up.Load()), size(l.Down.Load()))
}

// size writes a number of bytes for a person.
func size(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
