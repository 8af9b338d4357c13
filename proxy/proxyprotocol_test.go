package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// header2 writes a header of version 2.
func header2(command, kind byte, rest ...byte) string {
	b := append([]byte(proxySignature), command, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(append(b, rest...))
}

// withSum adds the extension with the checksum to a header.
func withSum(header string, wrong uint32) string {
	b := []byte(header)
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16+7))
	b = append(b, typeCRC32C, 0, 4, 0, 0, 0, 0)
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(b[len(b)-4:], sum^wrong)
	return string(b)
}

var (
	ip4 = []byte{203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb}
	ip6 = append(append(netip.MustParseAddr("2001:db8::9").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...), 0x12, 0x34, 0x01, 0xbb)
)

func with(b []byte, more ...byte) []byte { return append(bytes.Clone(b), more...) }

func TestReadPreamble(t *testing.T) {
	mapped := append(netip.MustParseAddr("::ffff:203.0.113.9").AsSlice(), ip6[16:]...)
	for _, c := range []struct{ name, in, want string }{
		{"v1 IPv4", "PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n", "203.0.113.9:4660"},
		{"v1 IPv6", "PROXY TCP6 2001:db8::9 2001:db8::1 4660 443\r\n", "[2001:db8::9]:4660"},
		{"v1 mapped", "PROXY TCP6 ::ffff:203.0.113.9 ::ffff:10.0.0.1 4660 443\r\n", "203.0.113.9:4660"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "itself"},
		{"v1 unknown with the rest", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "itself"},
		{"v1 port zero", "PROXY TCP4 203.0.113.9 10.0.0.1 0 443\r\n", "203.0.113.9:0"},
		{"v1 leading zero in a port", "PROXY TCP4 203.0.113.9 10.0.0.1 04660 443\r\n", ""},
		{"v1 leading zero in an address", "PROXY TCP4 203.0.113.09 10.0.0.1 4660 443\r\n", ""},
		{"v1 large port", "PROXY TCP4 203.0.113.9 10.0.0.1 4660 65536\r\n", ""},
		{"v1 signed port", "PROXY TCP4 203.0.113.9 10.0.0.1 +4660 443\r\n", ""},
		{"v1 another family", "PROXY TCP4 2001:db8::9 2001:db8::1 4660 443\r\n", ""},
		{"v1 mixed families", "PROXY TCP6 2001:db8::9 10.0.0.1 4660 443\r\n", ""},
		{"v1 zone", "PROXY TCP6 fe80::9%eth0 fe80::1 4660 443\r\n", ""},
		{"v1 two blanks", "PROXY TCP4  203.0.113.9 10.0.0.1 4660 443\r\n", ""},
		{"v1 blank at the end", "PROXY TCP4 203.0.113.9 10.0.0.1 4660 443 \r\n", ""},
		{"v1 UDP", "PROXY UDP4 203.0.113.9 10.0.0.1 4660 443\r\n", ""},
		{"v1 too few", "PROXY TCP4 203.0.113.9 10.0.0.1\r\n", ""},
		{"v1 small letters", "proxy TCP4 203.0.113.9 10.0.0.1 4660 443\r\n", ""},
		{"v1 bare LF", "PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\n" + strings.Repeat("x", 100), ""},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", ""},
		{"v1 as long as allowed", "PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "itself"},
		{"v1 without an end", "PROXY TCP4 203.0.113.9 10.0.0.1 4660 443", ""},
		{"v2 IPv4", header2(0x21, 0x11, ip4...), "203.0.113.9:4660"},
		{"v2 IPv6", header2(0x21, 0x21, ip6...), "[2001:db8::9]:4660"},
		{"v2 mapped", header2(0x21, 0x21, mapped...), "203.0.113.9:4660"},
		{"v2 local", header2(0x20, 0x00), "itself"},
		{"v2 local with addresses", header2(0x20, 0x11, ip4...), "itself"},
		{"v2 unspecified", header2(0x21, 0x00), "itself"},
		{"v2 extensions", header2(0x21, 0x11, with(ip4, 0x04, 0, 2, 1, 2, 0xe0, 0, 0)...), "203.0.113.9:4660"},
		{"v2 checksum", withSum(header2(0x21, 0x11, with(ip4, 0x02, 0, 1, 'a')...), 0), "203.0.113.9:4660"},
		{"v2 wrong checksum", withSum(header2(0x21, 0x11, ip4...), 1), ""},
		{"v2 short checksum", header2(0x21, 0x11, with(ip4, 0x03, 0, 2, 0, 0)...), ""},
		{"v2 extension beyond the end", header2(0x21, 0x11, with(ip4, 0x04, 0, 9, 1)...), ""},
		{"v2 half an extension", header2(0x21, 0x11, with(ip4, 0x04, 0)...), ""},
		{"v2 too short for its addresses", header2(0x21, 0x21, ip4...), ""},
		{"v2 UDP", header2(0x21, 0x12, ip4...), ""},
		{"v2 unix socket", header2(0x21, 0x31, make([]byte, 216)...), ""},
		{"v2 another command", header2(0x22, 0x11, ip4...), ""},
		{"version 3", header2(0x31, 0x11, ip4...), ""},
		{"v2 cut off", header2(0x21, 0x11, ip4...)[:20], ""},
		{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", ""},
		{"nothing", "", ""},
	} {
		r := strings.NewReader(c.in + "rest")
		if c.want == "" { // nothing follows what is cut off
			r = strings.NewReader(c.in)
		}
		got := ""
		switch source, err := readPreamble(r); {
		case err != nil:
		case source.IsValid():
			got = source.String()
		default:
			got = "itself"
		}
		rest, _ := io.ReadAll(r)
		if got != c.want || c.want != "" && string(rest) != "rest" {
			t.Errorf("%s: %q, want %q, and %q follows", c.name, got, c.want, rest)
		}
	}
}

func FuzzReadPreamble(f *testing.F) {
	for _, seed := range []string{"PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n", "PROXY UNKNOWN\r\n", header2(0x21, 0x11, ip4...), withSum(header2(0x21, 0x21, ip6...), 0), header2(0x20, 0)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		source, err := readPreamble(r)
		if err != nil && source.IsValid() {
			t.Errorf("%v with %v", source, err)
		}
		if err == nil && source.IsValid() && (source.Addr().Is4In6() || source.Addr().Zone() != "") {
			t.Errorf("%v is not in its plain form", source)
		}
		// What follows has no influence.
		used := b[:len(b)-r.Len()]
		again, err2 := readPreamble(io.MultiReader(bytes.NewReader(used), strings.NewReader("\r\nPROXY TCP4 1.1.1.1")))
		if err == nil && (err2 != nil || again != source) {
			t.Errorf("%v, then %v %v", source, again, err2)
		}
	})
}

// Behind a load balancer, requests are from whom it says, also through TLS; who
// does not say is closed, and so is whoever is not listed.
func TestProxyProtocolListener(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "app.example")
	holder, err := NewTLS(TLSConfig{Certificates: []Certificate{{cert, key}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(peers ...string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conf := Config{ProxyProtocol: peers}
		srv := NewServer(Config{TLS: TLSConfig{Certificates: []Certificate{{cert, key}}}}, New(Options{Recorder: &recorder{signal: make(chan *access.Event, 10)}}))
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })
		srv.TLSConfig = holder.Config()
		go srv.ServeTLS(conf.Preambles(l, slog.New(slog.DiscardHandler)), "", "")
		t.Cleanup(func() { srv.Close() })
		return l.Addr().String()
	}
	ask := func(addr, preamble string) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, preamble)
		secure := tls.Client(conn, &tls.Config{ServerName: "app.example", RootCAs: ca.pool})
		io.WriteString(secure, "GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(secure)
		_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
		return body
	}
	listed, unlisted, off := serve("127.0.0.0/8"), serve("10.0.0.0/8"), serve()
	const v1 = "PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n"
	for name, c := range map[string][3]string{
		"version 1":                {listed, v1, "203.0.113.9:4660"},
		"version 2":                {listed, header2(0x21, 0x21, ip6...), "[2001:db8::9]:4660"},
		"nothing":                  {listed, "", ""},
		"twice":                    {listed, v1 + v1, ""},
		"from somebody else":       {unlisted, v1, ""},
		"somebody else, silent":    {unlisted, "", ""},
		"where nobody is believed": {off, v1, ""},
	} {
		if got := ask(c[0], c[1]); got != c[2] {
			t.Errorf("%s: %q, want %q", name, got, c[2])
		}
	}
	if got := ask(listed, header2(0x20, 0)); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("a health check: %q", got)
	}
	if got := ask(off, ""); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("without the protocol: %q", got)
	}
}
