package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// listeners are what connections are accepted on. Each is opened anew, unless
// whoever started this process has opened it already: the doorward before it, or
// systemd. The connections that nobody has accepted yet belong to the listener,
// not to the process, so that none is lost on the way.
type listeners struct {
	log   *slog.Logger
	given []*listening // by whoever started this process, and not taken up yet
	open  []*listening

	serving sync.WaitGroup // those who accept
}

// listening is one of them.
type listening struct {
	net.Listener
	key     string // of the configuration
	address string // in the words of the configuration; unknown where systemd has opened it
	kept    bool   // by systemd, which also holds it when this process ends
	closing atomic.Bool
}

// Close implements net.Listener.
func (l *listening) Close() error {
	l.closing.Store(true)
	return l.Listener.Close()
}

// get returns the listener of a key, which may have been opened before.
func (ls *listeners) get(key, address string, open func() (net.Listener, error)) (*listening, error) {
	for _, l := range ls.open {
		if l.key == key {
			return l, nil
		}
	}
	l := ls.take(key, address)
	if l == nil {
		opened, err := open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w; choose another address or stop what uses this one", key, err)
		}
		l = &listening{Listener: opened}
	}
	l.key, l.address = key, address
	if socket, ok := l.Listener.(*net.UnixListener); ok {
		socket.SetUnlinkOnClose(!l.kept)
	}
	ls.open = append(ls.open, l)
	return l, nil
}

// take returns the listener that was given for a key, or at its address.
func (ls *listeners) take(key, address string) *listening {
	for i, l := range ls.given {
		if l.key == key && (l.address == "" || l.address == address) || l.key == "" && at(l.Addr(), address) {
			ls.given = append(ls.given[:i], ls.given[i+1:]...)
			return l
		}
	}
	return nil
}

// at reports whether a listener has the address that a configuration names.
func at(have net.Addr, address string) bool {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return have.Network() == "unix" && have.String() == path
	}
	tcp, ok := have.(*net.TCPAddr)
	host, port, err := net.SplitHostPort(address)
	if !ok || err != nil || port != fmt.Sprint(tcp.Port) {
		return false
	}
	if host == "" {
		return tcp.IP.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap() == tcp.AddrPort().Addr().Unmap()
}

// serve opens a listener and serves it until that ends without an error, or the
// listener is closed here.
func (ls *listeners) serve(key, address string, open func() (net.Listener, error), serve func(net.Listener) error, failed chan<- error) error {
	l, err := ls.get(key, address, open)
	if err != nil {
		return err
	}
	ls.serving.Go(func() {
		if err := serve(l); err != nil && !l.closing.Load() {
			failed <- fmt.Errorf("%s: %w", key, err)
		}
	})
	return nil
}

// refuseRest closes what was given and is not wanted.
func (ls *listeners) refuseRest() {
	for _, l := range ls.given {
		ls.log.Warn("nothing in the configuration listens on what this process was started with", "key", l.key, "address", l.Addr().String())
		l.Close()
	}
	ls.given = nil
}

// place tells another process what a listener that it inherits is for.
type place struct {
	Key, Address string
	Kept         bool
}

// files returns a copy of each for another process.
func (ls *listeners) files() (files []*os.File, places []place, err error) {
	for _, l := range ls.open {
		socket, ok := l.Listener.(syscall.Conn)
		if !ok {
			return files, nil, fmt.Errorf("%s: %T cannot be handed on", l.key, l.Listener)
		}
		file, err := copyOf(socket, l.key)
		if err != nil {
			return files, nil, fmt.Errorf("%s: %w", l.key, err)
		}
		files, places = append(files, file), append(places, place{l.key, l.address, l.kept})
	}
	return files, places, nil
}

// leave accepts no more connections, and returns when whoever accepted has taken
// note of the last one. The listeners stay with whoever has copies.
func (ls *listeners) leave() {
	for _, l := range ls.open {
		if socket, ok := l.Listener.(*net.UnixListener); ok {
			socket.SetUnlinkOnClose(false)
		}
		l.Close()
	}
	ls.serving.Wait()
}

// close closes all of them.
func (ls *listeners) close() {
	for _, l := range append(ls.given, ls.open...) {
		l.Close()
	}
}

// inherit takes up a listener that is open as a file of this process.
func inherit(fd int, key, address string) (*listening, error) {
	file := os.NewFile(uintptr(fd), key)
	if file == nil {
		return nil, errors.New("there is no such file")
	}
	defer file.Close() // the listener has a copy, which no other process gets
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return &listening{Listener: l, key: key, address: address}, nil
}
