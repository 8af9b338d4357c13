package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
)

// connect returns both ends of a connection to a listener, which is on TCP below.
func connect(t *testing.T, l net.Listener) (visitor *net.TCPConn, conn net.Conn) {
	t.Helper()
	there, err := net.Dial("tcp", l.Addr().String())
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

// What the listener for visitors adds to a connection takes nothing away: one
// direction can end before the other, and a connection can be cut off so that the
// other side knows.
func TestWrappedConnectionsEndAsOthersDo(t *testing.T) {
	config := Config{ProxyProtocol: []string{"127.0.0.1"}}
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"none":           func(l net.Listener) net.Listener { return l },
		"gathering":      func(l net.Listener) net.Listener { return gathering{l} },
		"PROXY protocol": func(l net.Listener) net.Listener { return config.Preambles(l, slog.New(slog.DiscardHandler)) },
		"both": func(l net.Listener) net.Listener {
			return gathering{config.Preambles(l, slog.New(slog.DiscardHandler))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := wrap(inner)
			defer l.Close()
			visitor, conn := connect(t, l)
			io.WriteString(conn, "last words")
			if err := closeWrite(conn); err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(visitor); err != nil || string(text) != "last words" {
				t.Errorf("%q, %v", text, err)
			}
			io.WriteString(visitor, "PROXY UNKNOWN\r\nand more")
			visitor.CloseWrite()
			if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "and more") {
				t.Errorf("after the last words comes %q, %v", text, err)
			}

			visitor, conn = connect(t, l)
			lingers, ok := conn.(interface{ SetLinger(int) error })
			if !ok || lingers.SetLinger(0) != nil {
				t.Fatalf("%T cannot be cut off", conn)
			}
			conn.Close()
			if _, err := visitor.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut off, the visitor gets %v", err)
			}
		})
	}
}
