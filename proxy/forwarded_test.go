package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// Whom a request is from, and what it asked for, whatever it says about itself:
// each case is a connection with what stands in front of it (the PROXY protocol),
// and what is decided on. A balancer passes connections on; 10.0.0.0/8 and
// fd00::/8 are listed proxies, everything else are visitors, and nothing that a
// visitor wrote counts. An empty address is one that nobody knows.
func TestWhomARequestIsFrom(t *testing.T) {
	const lb, lb6, visitor, evil = "10.0.0.7", "fd00::7", "192.0.2.1", "6.6.6.6"
	const fwd, xff, proto, host = "Forwarded: ", "X-Forwarded-For: ", "X-Forwarded-Proto: ", "X-Forwarded-Host: "
	const https, http, refused = "https://app.example", "http://app.example", ""
	type told struct {
		name   string
		peer   string
		lines  []string
		ip     string
		origin string
	}
	byRFC7239 := []told{
		{"a visitor without a proxy", visitor, nil, visitor, http},
		{"a visitor who says to be another", visitor, []string{fwd + "for=10.1.1.1;proto=https;host=other.example"}, visitor, http},
		{"a visitor who says it in every way", visitor, []string{fwd + "for=10.1.1.1", xff + "10.1.1.1", "X-Real-IP: 10.1.1.1", "True-Client-IP: 10.1.1.1", proto + "https"}, visitor, http},
		{"a proxy that speaks for itself", lb, nil, lb, http},
		{"one proxy", lb, []string{fwd + "for=192.0.2.1"}, visitor, http},
		{"one proxy that ended TLS", lb, []string{fwd + "for=192.0.2.1;proto=https"}, visitor, https},
		{"with everything", lb, []string{fwd + `for=192.0.2.1;proto=https;host=app.example;by=10.0.0.7`}, visitor, https},
		{"another host", lb, []string{"Host: inner", fwd + `for=192.0.2.1;proto=https;host=app.example`}, visitor, https},
		{"a host with a port", lb, []string{"Host: inner", fwd + `for=192.0.2.1;proto=https;host="app.example:443"`}, visitor, https},
		{"names in capitals", lb, []string{fwd + "FOR=192.0.2.1;PROTO=HTTPS;Host=APP.example"}, visitor, https},
		{"blanks around semicolons", lb, []string{fwd + "for=192.0.2.1 ;\tproto=https; host=app.example"}, visitor, https},
		{"another order", lb, []string{fwd + "proto=https;for=192.0.2.1"}, visitor, https},
		{"a semicolon at the end", lb, []string{fwd + "for=192.0.2.1;proto=https;"}, visitor, https},
		{"unknown parameters", lb, []string{fwd + `for=192.0.2.1;secret="a, b; c=d";proto=https`}, visitor, https},
		{"quoted", lb, []string{fwd + `for="192.0.2.1";proto="https"`}, visitor, https},
		{"with a port", lb, []string{fwd + `for="192.0.2.1:4711"`}, visitor, http},
		{"with a hidden port", lb, []string{fwd + `for="192.0.2.1:_sea"`}, visitor, http},
		{"IPv6", lb, []string{fwd + `for="[2001:db8::1]"`}, "2001:db8::1", http},
		{"IPv6 at length", lb, []string{fwd + `for="[2001:0DB8:0:0:0:0:0:1]"`}, "2001:db8::1", http},
		{"IPv6 with a port", lb, []string{fwd + `for="[2001:db8::1]:4711";proto=https`}, "2001:db8::1", https},
		{"IPv6 with a zone", lb, []string{fwd + `for="[fe80::1%eth0]"`}, "fe80::1", http},
		{"IPv6 with a zone and a port", lb, []string{fwd + `for="[fe80::1%25eth0]:80"`}, "fe80::1", http},
		{"IPv4 in IPv6", lb, []string{fwd + `for="[::ffff:192.0.2.1]"`}, visitor, http},
		{"a proxy over IPv6", lb6, []string{fwd + "for=192.0.2.1"}, visitor, http},
		{"a visitor over IPv6", "2001:db8::66", []string{fwd + "for=10.1.1.1"}, "2001:db8::66", http},
		{"two proxies", lb, []string{fwd + "for=192.0.2.1;proto=https, for=10.0.0.8"}, visitor, https},
		{"two proxies, two lines", lb, []string{fwd + "for=192.0.2.1;proto=https", fwd + "for=10.0.0.8"}, visitor, https},
		{"two proxies in IPv6", lb6, []string{fwd + `for="[2001:db8::1]", for="[fd00::8]:80"`}, "2001:db8::1", http},
		{"a proxy as IPv4 in IPv6", lb, []string{fwd + `for=192.0.2.1, for="[::ffff:10.0.0.8]"`}, visitor, http},
		{"TLS up to the first of two", lb, []string{fwd + "for=192.0.2.1;proto=https;host=app.example, for=10.0.0.8;proto=http;host=inner"}, visitor, https},
		{"the second says what the first does not", lb, []string{fwd + "for=192.0.2.1, for=10.0.0.8;proto=https"}, visitor, https},
		{"nothing but proxies", lb, []string{fwd + "for=10.0.0.9, for=10.0.0.8"}, "10.0.0.9", http},
		{"spoofed on the left", lb, []string{fwd + "for=6.6.6.6;proto=https, for=192.0.2.1"}, visitor, http},
		{"spoofed on a line before", lb, []string{fwd + "for=6.6.6.6;proto=https;host=other.example", fwd + "for=192.0.2.1"}, visitor, http},
		{"spoofed as a proxy", lb, []string{fwd + "for=6.6.6.6, for=10.0.0.8, for=192.0.2.1"}, visitor, http},
		{"spoofed as many proxies", lb, []string{fwd + strings.Repeat("for=10.0.0.8,", 500) + "for=192.0.2.1"}, visitor, http},
		{"behind two proxies spoofed", lb, []string{fwd + "for=6.6.6.6;proto=https, for=192.0.2.1, for=10.0.0.8"}, visitor, http},
		{"a quotation mark left open", lb, []string{fwd + `for=6.6.6.6;proto=https;by=", for=192.0.2.1`}, visitor, http},
		{"a quotation mark around what comes", lb, []string{fwd + `for=6.6.6.6;by=", for="192.0.2.1"`}, visitor, http},
		{"a quotation mark and a backslash", lb, []string{fwd + `for=6.6.6.6;by="\, for=192.0.2.1`}, visitor, http},
		{"a quotation mark on a line before", lb, []string{fwd + `for=6.6.6.6;by="`, fwd + `for="192.0.2.1"`}, visitor, http},
		{"garbage on the left", lb, []string{fwd + `;;==",,for=192.0.2.1`}, visitor, http},
		{"a comma left over", lb, []string{fwd + "for=6.6.6.6,, for=192.0.2.1"}, visitor, http},
		{"hidden", lb, []string{fwd + "for=_hidden"}, "", http},
		{"hidden with TLS", lb, []string{fwd + "for=_SEVKISEK;proto=https"}, "", https},
		{"hidden with a port", lb, []string{fwd + `for="_hidden:_port"`}, "", http},
		{"unknown", lb, []string{fwd + "for=unknown"}, "", http},
		{"Unknown with a port", lb, []string{fwd + `for="Unknown:80"`}, "", http},
		{"hidden, and an address before it", lb, []string{fwd + "for=6.6.6.6, for=_hidden"}, "", http},
		{"hidden behind a second proxy", lb, []string{fwd + "for=6.6.6.6, for=_hidden;proto=https, for=10.0.0.8"}, "", https},
		{"no address", lb, []string{fwd + "proto=https"}, "", https},
		{"no address, and one before it", lb, []string{fwd + "for=6.6.6.6, proto=https"}, "", https},
		{"nothing", lb, []string{fwd}, "", http},
		{"a comma at the end", lb, []string{fwd + "for=6.6.6.6,"}, "", http},
		{"32 proxies", lb, []string{fwd + "for=192.0.2.1" + strings.Repeat(", for=10.0.0.8", 31)}, visitor, http},
		{"33 proxies", lb, []string{fwd + "for=192.0.2.1" + strings.Repeat(", for=10.0.0.8", 32)}, "", http},
		{"the header that does not count", lb, []string{xff + evil, proto + "https", host + "other.example"}, lb, http},
		{"both headers", lb, []string{fwd + "for=192.0.2.1", xff + evil, proto + "https", host + "other.example"}, visitor, http},
		{"an address without a name", lb, []string{fwd + "192.0.2.1"}, "", refused},
		{"IPv6 without brackets", lb, []string{fwd + `for="2001:db8::1"`}, "", refused},
		{"IPv6 without quotation marks", lb, []string{fwd + `for=[2001:db8::1]`}, "", refused},
		{"IPv4 in brackets", lb, []string{fwd + `for="[192.0.2.1]"`}, "", refused},
		{"an octal address", lb, []string{fwd + "for=010.0.0.1"}, "", refused},
		{"a number", lb, []string{fwd + "for=3221225985"}, "", refused},
		{"a host name", lb, []string{fwd + "for=visitor.example"}, "", refused},
		{"port 65536", lb, []string{fwd + `for="192.0.2.1:65536"`}, "", refused},
		{"no port behind the colon", lb, []string{fwd + `for="192.0.2.1:"`}, "", refused},
		{"something behind the brackets", lb, []string{fwd + `for="[2001:db8::1]x"`}, "", refused},
		{"brackets left open", lb, []string{fwd + `for="[2001:db8::1"`}, "", refused},
		{"two addresses", lb, []string{fwd + "for=192.0.2.1;for=6.6.6.6"}, "", refused},
		{"two protocols", lb, []string{fwd + "for=192.0.2.1;proto=http;proto=https"}, "", refused},
		{"a protocol that is none", lb, []string{fwd + "for=192.0.2.1;proto=gopher"}, visitor, refused},
		{"an empty address", lb, []string{fwd + `for=""`}, "", refused},
		{"a backslash", lb, []string{fwd + `for="192.0.2\.1"`}, "", refused},
		{"a proxy that leaves a quotation mark open", lb, []string{fwd + `for="192.0.2.1`}, "", refused},
		{"blanks around the equals sign", lb, []string{fwd + "for = 192.0.2.1"}, "", refused},
		{"a hidden name without letters", lb, []string{fwd + "for=_"}, "", refused},
		{"a host that is none", lb, []string{fwd + `for=192.0.2.1;host="app.example/x"`}, visitor, refused},
	}
	byXForwardedFor := []told{
		{"a visitor who says to be another", visitor, []string{xff + "10.1.1.1", fwd + "for=10.1.1.1;proto=https"}, visitor, http},
		{"the header that does not count", lb, []string{fwd + "for=6.6.6.6;proto=https;host=other.example"}, lb, http},
		{"both headers", lb, []string{xff + visitor, proto + "https", fwd + "for=6.6.6.6;proto=http;host=other.example"}, visitor, https},
		{"spoofed on the left", lb, []string{xff + "6.6.6.6, 192.0.2.1"}, visitor, http},
		{"a proxy that does not know", lb, []string{xff + "6.6.6.6, unknown"}, "", http},
		{"IPv6 with a zone", lb6, []string{xff + "fe80::1%eth0"}, "fe80::1", http},
	}
	echo := newEcho(t)
	for mode, cases := range map[string][]told{byForwarded: byRFC7239, byXForwarded: byXForwardedFor} {
		t.Run(mode, func(t *testing.T) {
			sites := []access.Route{routeTo(https, echo), routeTo(http, echo)}
			sites[0].ID = "secure"
			w := newWorld(t, sites, withPolicy(allowAll), withServer(func(c *Config) {
				c.TrustedProxies, c.ProxyProtocol, c.Forwarded = []string{"10.0.0.0/8", "fd00::/8"}, []string{"127.0.0.1"}, mode
			}))
			address := w.behindBalancer()
			for _, c := range cases {
				status := w.announced(address, c.peer, c.lines)
				e := w.rec.event(t)
				ip, origin := "", ""
				if e.Request.Network.IP.IsValid() {
					ip = e.Request.Network.IP.String()
				}
				if status == 200 {
					origin = e.Request.Origin()
				}
				if ip != c.ip || origin != c.origin {
					t.Errorf("%s: from %q, %q (%d); want %q, %q", c.name, ip, origin, status, c.ip, c.origin)
				}
			}
		})
	}
	if n := len(byRFC7239) + len(byXForwardedFor); n < 60 {
		t.Errorf("%d cases are left", n)
	}
}

// behindBalancer serves the door on another listener, which takes the PROXY
// protocol.
func (w *world) behindBalancer() (address string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := NewServer(w.snapshot.Server, w.door)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(w.snapshot.Server.Preambles(l, slog.New(slog.DiscardHandler)))
	}()
	w.t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

// announced asks on a connection that a balancer says is from a peer, and returns
// the status.
func (w *world) announced(address, peer string, lines []string) int {
	w.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	family, us := "TCP4", "127.0.0.1"
	if strings.Contains(peer, ":") {
		family, us = "TCP6", "::1"
	}
	host := "Host: app.example"
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Host: ") }); i >= 0 {
		host, lines = lines[i], slices.Delete(slices.Clone(lines), i, i+1)
	}
	fmt.Fprintf(conn, "PROXY %s %s %s 4711 443\r\nGET / HTTP/1.1\r\n%s\r\nConnection: close\r\n%s\r\n\r\n", family, peer, us, host, strings.Join(lines, "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatalf("%s %q: %v", peer, lines, err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// A certificate that a proxy shows is its own, by whichever header it says that
// it speaks for somebody.
func TestEitherHeaderTellsThatAProxySpeaksForSomebody(t *testing.T) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if !relayed(http.Header{name: {"x"}}) {
			t.Error(name)
		}
	}
	if relayed(http.Header{"X-Real-Ip": {"x"}}) {
		t.Error("another header does")
	}
}

func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{"for=192.0.2.1", `for="[2001:db8::1%eth0]:80";proto=https, for=10.0.0.1`, "for=_hidden", ",,", `for=6.6.6.6;by="`, `for="\`, "a\nfor=10.0.0.1"} {
		f.Add(seed)
	}
	g := &generation{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	peer := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		said, err := forwardedRelay(peer, lines, g.trusts)
		if said.addr.Zone() != "" || said.addr.Is4In6() || err != nil && said != (relay{}) {
			t.Fatalf("%q: %+v %v", header, said, err)
		}
		// What a proxy appends, to the same line or as another, beats whatever the
		// visitor wrote before it.
		for _, own := range []string{"for=192.0.2.77;proto=https;host=app.example", `host="app.example";for="192.0.2.77:1";proto="https"`} {
			behind := slices.Clone(lines)
			behind[len(behind)-1] += ", " + own
			for _, lines := range [][]string{append(lines, own), behind} {
				said, err := forwardedRelay(peer, lines, g.trusts)
				if err != nil || said != (relay{netip.MustParseAddr("192.0.2.77"), "https", "app.example"}) {
					t.Fatalf("%q: %+v %v", lines, said, err)
				}
			}
		}
		if said, err := forwardedRelay(netip.MustParseAddr("192.0.2.1"), lines, g.trusts); err != nil || said != (relay{addr: netip.MustParseAddr("192.0.2.1")}) {
			t.Fatalf("%q: an unlisted peer is believed: %+v %v", header, said, err)
		}
	})
}
