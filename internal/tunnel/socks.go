package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// SOCKS 5 (RFC 1928), as much as a program on this machine needs: CONNECT
// without authentication. Names are looked up behind the door.

const (
	socksVersion = 5
	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4

	socksGranted      = 0
	socksFailed       = 1
	socksNotAllowed   = 2
	socksUnreachable  = 4
	socksNoCommand    = 7
	socksNoAddress    = 8
	socksNoMethod     = 0xff
	handshakePatience = 30 * time.Second
)

// errSOCKS is an error with the code that the client is told, negative if it can
// be told nothing.
type errSOCKS struct {
	code int
	text string
}

func (e *errSOCKS) Error() string { return e.text }

// readSOCKS reads a client's greeting and request, and answers the greeting. It
// returns the target.
func readSOCKS(rw io.ReadWriter) (target string, err error) {
	var b [256]byte
	if _, err := io.ReadFull(rw, b[:2]); err != nil {
		return "", err
	}
	if b[0] != socksVersion {
		return "", &errSOCKS{-1, "not SOCKS 5"}
	}
	methods := b[2 : 2+min(int(b[1]), len(b)-2)]
	if _, err := io.ReadFull(rw, methods); err != nil {
		return "", err
	}
	if !strings.Contains(string(methods), "\x00") {
		rw.Write([]byte{socksVersion, socksNoMethod})
		return "", &errSOCKS{-1, "the program insists on authentication"}
	}
	if _, err := rw.Write([]byte{socksVersion, 0}); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(rw, b[:4]); err != nil {
		return "", err
	}
	if b[0] != socksVersion || b[2] != 0 {
		return "", &errSOCKS{socksFailed, "not SOCKS 5"}
	}
	command := b[1]
	host := ""
	switch b[3] {
	case socksIPv4, socksIPv6:
		size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[b[3]]
		if _, err := io.ReadFull(rw, b[:size]); err != nil {
			return "", err
		}
		addr, _ := netip.AddrFromSlice(b[:size])
		host = addr.Unmap().String()
	case socksName:
		if _, err := io.ReadFull(rw, b[:1]); err != nil {
			return "", err
		}
		name := b[1 : 1+min(int(b[0]), len(b)-1)]
		if _, err := io.ReadFull(rw, name); err != nil {
			return "", err
		}
		host = string(name)
	default:
		return "", &errSOCKS{socksNoAddress, "an unknown kind of address"}
	}
	if _, err := io.ReadFull(rw, b[:2]); err != nil {
		return "", err
	}
	if command != socksConnect {
		return "", &errSOCKS{socksNoCommand, "only connections are possible"}
	}
	target, err = Target(net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[:])))))
	if err != nil {
		return "", &errSOCKS{socksNoAddress, err.Error()}
	}
	return target, nil
}

func writeSOCKS(w io.Writer, code int) error {
	_, err := w.Write([]byte{socksVersion, byte(code), 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}

// SOCKS takes one local connection to where it asks for.
func (l *Local) SOCKS(ctx context.Context, conn net.Conn) {
	conn.SetDeadline(time.Now().Add(handshakePatience))
	target, err := readSOCKS(conn)
	if err != nil {
		if e, ok := errors.AsType[*errSOCKS](err); ok && e.code >= 0 {
			writeSOCKS(conn, e.code)
		}
		return
	}
	conn.SetDeadline(time.Time{})
	l.lead(ctx, conn, target, func(err error) error {
		switch _, refused := errors.AsType[*Refusal](err); {
		case err == nil:
			return writeSOCKS(conn, socksGranted)
		case refused && !behind(ReasonOf(err)):
			return writeSOCKS(conn, socksNotAllowed)
		default:
			return writeSOCKS(conn, socksUnreachable)
		}
	})
}

// Target returns the one spelling of a host and a port that doors decide on, as
// far as that can be told here.
func Target(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	host = strings.TrimSuffix(host, ".") // that of the root (RFC 1034 §3.1)
	if err != nil || host == "" || strings.HasSuffix(host, ".") || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/?#[]@%\\", r) }) {
		return "", fmt.Errorf("%.100q is not HOST:PORT", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%.100q is not HOST:PORT", text)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().String()
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(n, 10)), nil
}
