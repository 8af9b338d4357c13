package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/doorward/doorward/internal/tunnel"
)

// sayer writes lines for a person, and on a terminal below them what is going on.
type sayer struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	status   string // what stands below the lines now
}

func newSayer(out io.Writer) *sayer {
	file, ok := out.(*os.File)
	return &sayer{out: out, terminal: ok && isTerminal(file)}
}

func (s *sayer) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintln(s.out, text)
	fmt.Fprint(s.out, s.status)
}

// show replaces what stands below the lines.
func (s *sayer) show(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal || status == s.status {
		return
	}
	s.erase()
	s.status = status
	fmt.Fprint(s.out, status)
}

func (s *sayer) erase() {
	if n := strings.Count(s.status, "\n"); n > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", n)
	}
}

// board is everything that a connect serves.
type board struct {
	door   *tunnel.Door
	say    *sayer
	server string

	mu      sync.Mutex // protects what follows
	who     string
	until   time.Time
	entries []*entry
}

// entry is one listener.
type entry struct {
	local   *tunnel.Local
	name    string // what it leads to
	address net.Addr
	stop    context.CancelFunc
}

// reaskEvery is how often the door is asked anew which tunnels there are.
const reaskEvery = time.Minute

// serve listens and carries until ctx ends.
func (b *board) serve(ctx context.Context, f *connectFlags, target string) error {
	granted, err := b.ask(ctx)
	if err != nil {
		return err
	}
	if target != "" && !slices.ContainsFunc(granted.Tunnels, func(g tunnel.Grant) bool { return g.Covers(target) }) {
		// It will be refused; the refusal says why.
		s, err := b.door.Open(ctx, target)
		if err != nil {
			return err
		}
		s.Abort()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	split := &tunnel.Split{}
	if f.direct {
		split.Direct = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	}
	for _, one := range []struct {
		address, name string
		carry         func(*tunnel.Local, context.Context, net.Conn)
	}{
		{listenFor(target, f.listen), target, (*tunnel.Local).Carry},
		{f.socks, "SOCKS proxy", (*tunnel.Local).SOCKS},
		{f.httpProxy, "HTTP proxy", (*tunnel.Local).HTTPProxy},
	} {
		if one.address == "" {
			continue
		}
		l, err := listenLocally(one.address)
		if err != nil {
			return err
		}
		b.start(ctx, &all, l, one.name, &tunnel.Local{Door: b.door, Target: target, Split: split, Tell: b.say.line}, one.carry)
	}
	if f.all {
		b.follow(ctx, &all, granted)
	}
	b.watch(ctx, &all, f.all)
	return nil
}

func listenFor(target, address string) string {
	if target != "" && address == "" {
		return "127.0.0.1:0"
	}
	return address
}

// ask asks which tunnels there are, waiting for a door that is away.
func (b *board) ask(ctx context.Context) (granted *tunnel.Granted, err error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = b.door.Patiently(limited, func(err error) { b.say.line(err.Error() + "; trying again") }, func(ctx context.Context) (err error) {
		granted, err = b.door.Granted(ctx)
		return err
	})
	if err == nil {
		b.mu.Lock()
		b.who, b.until = granted.User, granted.Until
		b.mu.Unlock()
	}
	return granted, err
}

func (b *board) start(ctx context.Context, all *sync.WaitGroup, l net.Listener, name string, local *tunnel.Local, carry func(*tunnel.Local, context.Context, net.Conn)) {
	ctx, stop := context.WithCancel(ctx)
	e := &entry{local: local, name: name, address: l.Addr(), stop: stop}
	b.mu.Lock()
	b.entries = append(b.entries, e)
	b.mu.Unlock()
	b.say.line(fmt.Sprintf("%s leads to %s", l.Addr(), name))
	all.Go(func() {
		defer stop()
		if err := tunnel.Serve(ctx, l, func(ctx context.Context, conn net.Conn) { carry(local, ctx, conn) }); err != nil {
			b.say.line(fmt.Sprintf("%s: %v", l.Addr(), err))
		}
	})
}

// follow opens what is granted and not open, and closes what is open and not
// granted any more. A range has no port to listen at: ssh or a proxy names the host.
func (b *board) follow(ctx context.Context, all *sync.WaitGroup, granted *tunnel.Granted) {
	b.mu.Lock()
	open := slices.Clone(b.entries)
	b.mu.Unlock()
	names := map[string]bool{}
	for _, g := range granted.Tunnels {
		names[g.Target] = true
		if strings.HasPrefix(g.Target, "*") || slices.ContainsFunc(open, func(e *entry) bool { return e.name == g.Target }) {
			continue
		}
		l, err := listenNear(g.Target)
		if err != nil {
			b.say.line(fmt.Sprintf("%s: %v", g.Target, err))
			continue
		}
		b.start(ctx, all, l, g.Target, &tunnel.Local{Door: b.door, Target: g.Target, Tell: b.say.line}, (*tunnel.Local).Carry)
	}
	for _, e := range open {
		if e.local.Target != "" && !names[e.name] {
			b.say.line(e.name + ": you may not open this any more")
			e.stop()
			b.mu.Lock()
			b.entries = slices.DeleteFunc(b.entries, func(o *entry) bool { return o == e })
			b.mu.Unlock()
		}
	}
}

// listenNear listens at the port of the target, if it is free here and open to
// everybody, or else at a free one.
func listenNear(target string) (net.Listener, error) {
	if _, port, err := net.SplitHostPort(target); err == nil && len(port) >= 4 {
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// watch shows what is going on until ctx ends.
func (b *board) watch(ctx context.Context, all *sync.WaitGroup, follow bool) {
	tick, reask := time.NewTicker(time.Second), time.NewTicker(reaskEvery)
	defer tick.Stop()
	defer reask.Stop()
	for {
		b.say.show(b.table())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-reask.C:
			granted, err := b.door.Granted(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				b.say.line(tunnel.Explain(b.server, err))
			case err == nil:
				b.mu.Lock()
				b.who, b.until = granted.User, granted.Until
				b.mu.Unlock()
				if follow {
					b.follow(ctx, all, granted)
				}
			}
		}
	}
}

// table is the status display.
func (b *board) table() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	until := ""
	if !b.until.IsZero() {
		until = ", until " + b.until.Local().Format("15:04")
	}
	fmt.Fprintf(&text, "\n%s as %s%s\n", b.server, b.who, until)
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, e := range b.entries {
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.address, e.name, e.local.Summary())
	}
	w.Flush()
	return text.String()
}
