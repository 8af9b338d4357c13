package serve

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestAddressOfAListener(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	for _, c := range []struct {
		have    net.Addr
		address string
		want    bool
	}{
		{tcp("::", 443), ":443", true},
		{tcp("0.0.0.0", 443), ":443", true},
		{tcp("0.0.0.0", 443), "0.0.0.0:443", true},
		{tcp("127.0.0.1", 9901), "127.0.0.1:9901", true},
		{tcp("::ffff:127.0.0.1", 9901), "127.0.0.1:9901", true},
		{tcp("::", 443), ":444", false},
		{tcp("127.0.0.1", 443), ":443", false},
		{tcp("::", 443), "127.0.0.1:443", false},
		{tcp("127.0.0.1", 443), "localhost:443", false}, // a name may mean several addresses
		{tcp("127.0.0.1", 443), "unix:/run/a.sock", false},
		{&net.UnixAddr{Net: "unix", Name: "/run/a.sock"}, "unix:/run/a.sock", true},
		{&net.UnixAddr{Net: "unix", Name: "/run/a.sock"}, "unix:/run/b.sock", false},
		{&net.UnixAddr{Net: "unix", Name: "/run/a.sock"}, ":443", false},
	} {
		if got := at(c.have, c.address); got != c.want {
			t.Errorf("%s is %s: %v", c.have, c.address, got)
		}
	}
}

// What was opened for a key is taken up only where the configuration still names
// that address, and what nobody wants is closed.
func TestGivenListeners(t *testing.T) {
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	errNew := errors.New("opened anew")
	anew := func() (net.Listener, error) { return nil, errNew }
	old, moved, systemd := listen("tcp", "127.0.0.1:0"), listen("tcp", "127.0.0.1:0"), listen("tcp", "127.0.0.1:0")
	ls := &listeners{log: slog.New(slog.DiscardHandler), given: []*listening{
		{Listener: old, key: "server.listen", address: ":1"},
		{Listener: moved, key: "server.spoe.listen", address: ":2"},
		{Listener: systemd},
	}}
	if l, err := ls.get("server.listen", ":1", anew); err != nil || l.Listener != old {
		t.Error(l, err)
	}
	if _, err := ls.get("server.spoe.listen", ":3", anew); !errors.Is(err, errNew) {
		t.Error(err)
	}
	if l, err := ls.get("server.admin.listen", systemd.Addr().String(), anew); err != nil || l.Listener != systemd {
		t.Error(l, err)
	}
	ls.refuseRest()
	if _, err := net.Dial("tcp", moved.Addr().String()); err == nil {
		t.Error("what nobody wants still listens")
	}
	files, places, err := ls.files()
	if err != nil || len(files) != 2 || places[0] != (place{Key: "server.listen", Address: ":1"}) {
		t.Error(files, places, err)
	}
	for _, file := range files {
		file.Close()
	}
	ls.close()
}

// A socket is removed by whoever listens last, and not by who hands it on.
func TestSocketOutlivesWhoHandsItOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.sock")
	open := func() *listeners {
		ls := &listeners{log: slog.New(slog.DiscardHandler)}
		if _, err := ls.get("server.forward_auth.listen", "unix:"+path, func() (net.Listener, error) { return net.Listen("unix", path) }); err != nil {
			t.Fatal(err)
		}
		return ls
	}
	ls := open()
	files, _, err := ls.files()
	if err != nil {
		t.Fatal(err)
	}
	ls.leave()
	ls.close()
	inherited, err := net.FileListener(files[0])
	if err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	next := &listeners{log: slog.New(slog.DiscardHandler), given: []*listening{{Listener: inherited, key: "server.forward_auth.listen", address: "unix:" + path}}}
	if _, err := next.get("server.forward_auth.listen", "unix:"+path, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	next.close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left over: %v", err)
	}
}
