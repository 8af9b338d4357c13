package send

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/audit/format"
)

// timeout is how long a receiver may take for a batch.
const timeout = 30 * time.Second

// syslog sends RFC 5424 messages with octet counting (RFC 5425 §4.3, RFC 6587
// §3.4.1).
//
// Syslog has no acknowledgement: what was written to a connection that breaks
// may or may not have been read. So every batch has its own connection, which
// is closed in an orderly way, and the receiver's own close is the receipt: it
// cannot see the end of the stream without having read all that came before. A
// receiver that goes away in the middle resets the connection instead.
type syslog struct {
	cfg      Syslog
	opts     Options
	sessions tls.ClientSessionCache // connections are many
	header   string                 // what is the same in every message
	buf      bytes.Buffer
}

func newSyslog(cfg Syslog, opts Options) (Sender, error) {
	if !cfg.Plain {
		if _, err := cfg.config(""); err != nil {
			return nil, err
		}
	}
	return &syslog{
		cfg: cfg, opts: opts, sessions: tls.NewLRUClientSessionCache(4),
		header: " " + printusascii(opts.Host, 255) + " doorward " + strconv.Itoa(os.Getpid()) + " ",
	}, nil
}

// Send implements Sender.
func (s *syslog) Send(ctx context.Context, batch []Record) (err error) {
	s.buf.Reset()
	for i := range batch {
		s.message(&batch[i])
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(s.buf.Bytes()); err != nil {
		return err
	}
	return receipt(conn)
}

// receipt closes our side and waits for the receiver's.
func receipt(conn net.Conn) error {
	raw := conn
	if secure, ok := conn.(*tls.Conn); ok {
		if err := secure.CloseWrite(); err != nil {
			return err
		}
		raw = secure.NetConn()
	}
	if half, ok := raw.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	n, err := io.Copy(io.Discard, io.LimitReader(conn, maxAnswer))
	if err == nil && n == maxAnswer {
		err = errors.New("it talks instead")
	}
	if err != nil {
		return fmt.Errorf("the receiver did not confirm by an orderly close that it has read everything: %w", err)
	}
	return nil
}

func (s *syslog) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil || s.cfg.Plain {
		return conn, err
	}
	name, _, _ := net.SplitHostPort(s.cfg.Address)
	conf, err := s.cfg.config(name)
	if err != nil {
		conn.Close()
		return nil, err
	}
	conf.ClientSessionCache = s.sessions
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// message adds one message (RFC 5424 §6) behind its length.
func (s *syslog) message(r *Record) {
	priority := cmp.Or(s.cfg.Facility, 10)*8 + syslogSeverity(r.Severity)
	// Six digits of a second are the most there may be (§6.2.3).
	start := "<" + strconv.Itoa(priority) + ">1 " + r.Time.UTC().Format("2006-01-02T15:04:05.000000Z") + s.header + printusascii(r.Kind, 32) + " - "
	const bom = "\xef\xbb\xbf" // the text is UTF-8 (§6.4)
	s.buf.WriteString(strconv.Itoa(len(start) + len(bom) + len(r.Body)))
	s.buf.WriteByte(' ')
	s.buf.WriteString(start)
	s.buf.WriteString(bom)
	s.buf.Write(r.Body)
}

// syslogSeverity is the number of RFC 5424 §6.2.1.
func syslogSeverity(severity format.Severity) int {
	switch severity {
	case format.High:
		return 3 // error
	case format.Medium:
		return 4 // warning
	case format.Low:
		return 5 // notice
	}
	return 6 // informational
}

// printusascii makes a header field of a text (RFC 5424 §6).
func printusascii(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	return cmp.Or(text[:min(len(text), most)], "-")
}

// Close implements Sender.
func (s *syslog) Close() {}
