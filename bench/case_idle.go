package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"
)

// settling is how long a program has to come to rest before its memory is read.
const settling = 3 * time.Second

var idle = benchCase{
	id:    "idle",
	title: "Connections that say nothing",
	about: "Thousands of connections over which one request came and went, and as many open WebSockets through the proxy, each with its\n" +
		"connection to the backend. What one costs is the memory of the process afterwards, less the memory before, by the number of them;\n" +
		"before, the program had been under load. Doorward gives memory back after a quiet second here, and not after five minutes.",
	run: func(b *bench) (*table, error) {
		t := &table{Columns: []string{"", "connections", "before", "after", "memory each", "× " + bare}}
		type kind struct {
			name  string
			greet greeting
		}
		for _, k := range []kind{{"keep-alive", askOnce}, {"WebSocket", upgradeOnce}} {
			reference := 0.0
			for _, p := range slices.Concat([]participant{bareServer(false, smallPath, smallSize)}, door{name: "Doorward, 500 sessions", sessions: 500, rotation: 500, returns: "1s"}.participants()) {
				m, err := b.crowd(p, k.greet, settling)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", p.name, k.name, err)
				}
				if reference == 0 {
					reference = m.each(b.length.idle)
				}
				t.Rows = append(t.Rows, []string{p.name + ", " + k.name, count(float64(b.length.idle)), mebibytes(m.before), mebibytes(m.after),
					kibibytes(m.each(b.length.idle)), times(m.each(b.length.idle) / reference)})
			}
		}
		return t, nil
	},
}

// crowded is the memory of a program without and with many connections.
type crowded struct{ before, after int64 }

func (c crowded) each(n int) float64 { return float64(c.after-c.before) / float64(n) }

// greeting is what is said over a connection before it is left alone.
type greeting func(conn net.Conn, l *load, header http.Header) error

// crowd starts a program, opens many connections to it and looks at its memory,
// each time after a while without load.
func (b *bench) crowd(p participant, greet greeting, rest time.Duration) (c crowded, err error) {
	s, err := p.start(b)
	if err != nil {
		return c, err
	}
	defer s.process.stop()
	if err := s.load.check(b.ctx); err != nil {
		return c, err
	}
	if _, err := b.wrk(b.ctx, &s.load, b.length.round); err != nil {
		return c, err
	}
	if c.before, err = b.memoryAtRest(s, rest); err != nil {
		return c, err
	}
	conns, err := b.open(&s.load, greet)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	if err != nil {
		return c, err
	}
	if c.after, err = b.memoryAtRest(s, rest); err != nil {
		return c, err
	}
	runtime.KeepAlive(conns)
	return c, nil
}

func (b *bench) memoryAtRest(s *server, rest time.Duration) (int64, error) {
	select {
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	case <-time.After(rest):
	}
	u, err := usageOf("/proc", s.process.cmd.Process.Pid)
	return u.memory, err
}

// open opens the connections, a few at a time, and greets over each.
func (b *bench) open(l *load, greet greeting) (conns []net.Conn, err error) {
	var mu sync.Mutex
	var work sync.WaitGroup
	var failed error
	if err := l.readCycle(); err != nil {
		return nil, err
	}
	const workers = 32
	for worker := range workers {
		work.Go(func() {
			for i := worker; i < b.length.idle && b.ctx.Err() == nil; i += workers {
				conn, err := net.DialTimeout("tcp", l.address, patience)
				if err == nil {
					conn.SetDeadline(time.Now().Add(patience))
					err = errors.Join(greet(conn, l, l.headerOf(i)), conn.SetDeadline(time.Time{}))
				}
				mu.Lock()
				if conn != nil {
					conns = append(conns, conn)
				}
				failed = errors.Join(failed, err)
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	work.Wait()
	if failed == nil && b.ctx.Err() != nil {
		failed = context.Cause(b.ctx)
	}
	return conns, failed
}

func askOnce(conn net.Conn, l *load, header http.Header) error {
	return exchange(conn, l, header, http.StatusOK)
}

func upgradeOnce(conn net.Conn, l *load, header http.Header) error {
	header = header.Clone()
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		header.Set(name, value)
	}
	return exchange(conn, l, header, http.StatusSwitchingProtocols)
}

// exchange sends one request and reads the answer.
func exchange(conn net.Conn, l *load, header http.Header, want int) error {
	req, err := http.NewRequest(http.MethodGet, l.scheme+"://"+l.host+l.path, nil)
	if err != nil {
		return err
	}
	req.Header = header
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 2<<10), req)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return fmt.Errorf("answered %d, and not %d", res.StatusCode, want)
	}
	if want == http.StatusOK {
		_, err = io.CopyN(io.Discard, res.Body, int64(l.size))
	}
	return err
}
