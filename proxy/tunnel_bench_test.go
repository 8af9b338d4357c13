package proxy

import (
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/tunnel"
)

// BenchmarkIdleTunnels opens 2,000 tunnels, sends something through each, lets
// them wait, and says what they hold in memory beyond the door itself.
func BenchmarkIdleTunnels(b *testing.B) {
	const tunnels = 2000
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, tunnels)
	go func() { // nothing but the connections, so that what is measured is the door's
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var one [1]byte
			io.ReadFull(conn, one[:])
			conn.Write(one[:])
			conns <- conn
		}
	}()
	table, faults := NewTable([]access.Route{tunnelRoute("idle", "tcp://idle.example:7", []string{"tcp://" + l.Addr().String()})})
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	door := New(Options{Signer: newTestSigner(b), Recorder: &recorder{signal: make(chan *access.Event, 2*tunnels)}})
	server := Config{Tunnels: Tunnels{PerIdentity: tunnels, PerDestination: tunnels}}
	if err := door.Swap(&Snapshot{Version: "v", Server: server, Routes: table, Policy: policy(loginFirst), Identify: tokenBearer{}}); err != nil {
		b.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := NewServer(server, door)
	go srv.Serve(front)
	defer srv.Close()
	defer door.Close()

	base := held()
	open := make([]net.Conn, 0, tunnels)
	request := "GET " + tunnel.Template + "idle.example/7/ HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer alice\r\nConnection: Upgrade\r\nUpgrade: connect-tcp\r\n\r\n\xa0\x28\xd7\xf2\x01x"
	answer := make([]byte, 4<<10)
	for range tunnels {
		conn, err := net.Dial("tcp", front.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(conn, request)
		for got := 0; got == 0 || answer[got-1] != 'x'; {
			n, err := conn.Read(answer[got:])
			if err != nil {
				b.Fatalf("%v after %q", err, answer[:got])
			}
			got += n
		}
		open = append(open, conn)
		defer conn.Close()
		defer (<-conns).Close()
	}
	beyond := held() - base
	for b.Loop() {
		runtime.Gosched()
	}
	b.ReportMetric(float64(beyond)/(1<<20), "MiB-beyond-base")
	b.ReportMetric(float64(beyond)/tunnels/1024, "KiB/tunnel")
	if beyond > 64<<20 {
		b.Errorf("%d idle tunnels hold %d MiB", len(open), beyond>>20)
	}
}

// held is what the program has in use.
func held() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
