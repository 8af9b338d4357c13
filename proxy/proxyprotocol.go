package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proxyHeaderTimeout is how long a load balancer may take to say whom a
// connection is from, before anything else is read.
const proxyHeaderTimeout = 5 * time.Second

// Preambles wraps the listener for visitors where load balancers pass connections
// on and say in front of each whom it is from (server.proxy_protocol; the PROXY
// protocol, versions 1 and 2). There is no guessing: a listed peer has to say so
// on every connection, and nobody else is let in.
func (c *Config) Preambles(l net.Listener, log *slog.Logger) net.Listener {
	if len(c.ProxyProtocol) == 0 {
		return l
	}
	p := &preambleListener{Listener: l, log: log}
	for _, text := range c.ProxyProtocol {
		prefix, err := parsePrefix(text)
		if err == nil { // Validate has said so otherwise
			p.peers = append(p.peers, prefix)
		}
	}
	return p
}

type preambleListener struct {
	net.Listener
	peers []netip.Prefix
	log   *slog.Logger
}

// Accept implements net.Listener. It never waits for what a connection says.
func (l *preambleListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerAddr(conn.RemoteAddr().String())
		if !listed(l.peers, peer) {
			l.log.Debug("a connection that came from no load balancer was closed; list its address in server.proxy_protocol if it is one", "peer", peer)
			conn.Close()
			continue
		}
		return &announced{wrapped: wrapped{conn}, log: l.log}, nil
	}
}

// announced is a connection that begins with its preamble. The server asks it for
// the visitor's address in the goroutine of the connection, before it reads, so
// that the preamble is read there.
type announced struct {
	wrapped
	log  *slog.Logger
	once sync.Once
	from net.Addr
	err  error
}

func (c *announced) begin() {
	c.once.Do(func() {
		c.from = c.Conn.RemoteAddr()
		c.Conn.SetReadDeadline(time.Now().Add(proxyHeaderTimeout))
		source, err := readPreamble(c.Conn)
		if err != nil {
			c.err = fmt.Errorf("PROXY protocol: %w", err)
			c.log.Warn("a connection from a load balancer was closed: it does not say whom it is from; see that it sends the PROXY protocol (send-proxy-v2)",
				"peer", c.from.String(), "error", err)
			c.Conn.Close()
			return
		}
		c.Conn.SetReadDeadline(time.Time{})
		if source.IsValid() {
			c.from = net.TCPAddrFromAddrPort(source)
		}
	})
}

// RemoteAddr implements net.Conn: where the visitor is.
func (c *announced) RemoteAddr() net.Addr {
	c.begin()
	return c.from
}

// Read implements net.Conn. Only what follows the preamble is read.
func (c *announced) Read(b []byte) (int, error) {
	if c.begin(); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// SyscallConn implements syscall.Conn, for who waits for the visitor without a
// buffer: it is the socket behind the preamble.
func (c *announced) SyscallConn() (syscall.RawConn, error) {
	socket, ok := c.Conn.(syscall.Conn)
	if c.begin(); c.err != nil || !ok {
		return nil, errors.Join(c.err, errors.ErrUnsupported)
	}
	return socket.SyscallConn()
}

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLine      = "PROXY "
	longestLine    = 107 // with its end
)

var (
	errNoPreamble   = errors.New("it begins with something else")
	errLine         = errors.New("a malformed line")
	errPreamble     = errors.New("a malformed header")
	errPreambleSum  = errors.New("the checksum does not fit the header")
	errPreambleKind = errors.New("neither TCP over IPv4 nor over IPv6")
)

// readPreamble reads exactly one preamble. The address is invalid where the load
// balancer speaks for itself, as in a health check, or does not know: the peer's
// own counts then.
func readPreamble(r io.Reader) (netip.AddrPort, error) {
	start := make([]byte, len(proxySignature))
	if _, err := io.ReadFull(r, start); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case string(start) == proxySignature:
		return readHeader(r)
	case strings.HasPrefix(string(start), proxyLine):
		return readLine(r, start)
	}
	return netip.AddrPort{}, errNoPreamble
}

// readLine reads the rest of version 1, a byte at a time: what follows the line
// is the visitor's.
func readLine(r io.Reader, line []byte) (netip.AddrPort, error) {
	for one := make([]byte, 1); !strings.HasSuffix(string(line), "\r\n"); {
		if len(line) == longestLine {
			return netip.AddrPort{}, errLine
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return netip.AddrPort{}, err
		}
		line = append(line, one[0])
	}
	return parseLine(strings.TrimSuffix(string(line), "\r\n"))
}

func parseLine(line string) (netip.AddrPort, error) {
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil // whatever follows (§2.1)
	}
	if len(words) != 6 {
		return netip.AddrPort{}, errLine
	}
	source, err := netip.ParseAddr(words[2])
	target, err2 := netip.ParseAddr(words[3])
	port, ok := parsePort(words[4])
	_, ok2 := parsePort(words[5])
	if err != nil || err2 != nil || !ok || !ok2 {
		return netip.AddrPort{}, errLine
	}
	switch {
	case words[1] == "TCP4" && source.Is4() && target.Is4():
	case words[1] == "TCP6" && source.Is6() && target.Is6() && source.Zone()+target.Zone() == "":
	default:
		return netip.AddrPort{}, errLine
	}
	return netip.AddrPortFrom(source.Unmap(), port), nil
}

// parsePort takes digits without a leading zero.
func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && strconv.FormatUint(n, 10) == text
}

// The fields of version 2 (§2.2).
const (
	local, proxied     = 0x20, 0x21 // version and command
	unspecified        = 0x00       // family and transport
	overIPv4, overIPv6 = 0x11, 0x21
	typeCRC32C         = 0x03
)

// readHeader reads the rest of version 2.
func readHeader(r io.Reader) (netip.AddrPort, error) {
	header := append(make([]byte, 0, 256), proxySignature...)[:len(proxySignature)+4]
	fixed := header[len(proxySignature):]
	if _, err := io.ReadFull(r, fixed); err != nil {
		return netip.AddrPort{}, err
	}
	command, kind := fixed[0], fixed[1]
	rest := make([]byte, binary.BigEndian.Uint16(fixed[2:]))
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, err
	}
	var source netip.AddrPort
	size := 0 // of the addresses
	switch {
	case command == local:
		return source, nil // everything else is to be ignored
	case command != proxied:
		return source, errPreamble
	case kind == unspecified:
		return source, nil
	case kind == overIPv4:
		size = 12
	case kind == overIPv6:
		size = 36
	default:
		return source, errPreambleKind
	}
	if len(rest) < size {
		return source, errPreamble
	}
	if err := checkExtensions(append(header, rest...), len(header)+size); err != nil {
		return source, err
	}
	width := (size - 4) / 2
	addr, _ := netip.AddrFromSlice(rest[:width])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(rest[2*width:])), nil
}

// checkExtensions walks the extensions, which begin at an offset of the header.
// Only a checksum means anything to us; the others are skipped, malformed ones
// are not.
func checkExtensions(header []byte, at int) error {
	for at < len(header) {
		if len(header)-at < 3 {
			return errPreamble
		}
		size := int(binary.BigEndian.Uint16(header[at+1:]))
		value := at + 3
		if len(header)-value < size {
			return errPreamble
		}
		if header[at] == typeCRC32C {
			if size != 4 {
				return errPreamble
			}
			want := binary.BigEndian.Uint32(header[value:])
			zeroed := slices.Clone(header)
			clear(zeroed[value : value+4])
			if crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) != want {
				return errPreambleSum
			}
		}
		at = value + size
	}
	return nil
}
