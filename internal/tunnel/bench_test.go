package tunnel

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sink takes connections and counts what arrives.
func sink(b *testing.B) (address string, got *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	got = new(atomic.Int64)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buffer)
					got.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

// push sends n bytes to an address and returns how fast they arrived.
func push(b *testing.B, address string, got *atomic.Int64, n int64) float64 {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	before, began, chunk := got.Load(), time.Now(), make([]byte, 64<<10)
	for sent := int64(0); sent < n; sent += int64(len(chunk)) {
		if _, err := conn.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	for got.Load()-before < n {
		time.Sleep(50 * time.Microsecond)
	}
	return float64(n) / time.Since(began).Seconds() / 1e6
}

// BenchmarkStream pushes bytes through both halves of a tunnel on loopback, and
// through socat as a plain relay of TCP in the same run.
func BenchmarkStream(b *testing.B) {
	const size = 256 << 20
	address, got := sink(b)
	relay := socat(b, address)
	tunnelled := tunnelTo(b, address)
	var ours, theirs float64
	for range 3 { // in turn, so that both see the same machine
		theirs = max(theirs, push(b, relay, got, size))
		ours = max(ours, push(b, tunnelled, got, size))
	}
	for b.Loop() {
		runtime.Gosched()
	}
	b.ReportMetric(ours, "MB/s")
	b.ReportMetric(theirs, "socat-MB/s")
	b.ReportMetric(100*ours/theirs, "%-of-socat")
}

// tunnelTo is a listener of the client's half that leads by the server's half to
// an address.
func tunnelTo(b *testing.B, address string) string {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		door.Close()
		local.Close()
	})
	traffic := func() *Traffic { return &Traffic{new(atomic.Int64), new(atomic.Int64)} }
	go func() {
		for {
			conn, err := door.Accept()
			if err != nil {
				return
			}
			target, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			go Relay(NewCapsules(conn, nil), TCP(target), traffic())
		}
	}()
	go func() {
		for {
			conn, err := local.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", door.Addr().String())
			if err != nil {
				return
			}
			go Relay(NewCapsules(to, nil), TCP(conn), traffic())
		}
	}()
	return local.Addr().String()
}

// socat relays to an address and returns where it listens.
func socat(b *testing.B, address string) string {
	program, err := exec.LookPath("socat")
	if err != nil {
		b.Skip("socat is not installed; make test installs it")
	}
	cmd := exec.Command(program, "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1,fork,reuseaddr", "TCP:"+address)
	said, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			b.Fatalf("socat: %v", err)
		}
		if _, at, ok := strings.Cut(line, "listening on AF=2 "); ok {
			go io.Copy(io.Discard, lines)
			return strings.TrimSpace(at)
		}
	}
}
