package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func tunnelRoute(id, from string, to []string, networks ...string) access.Route {
	return access.Route{ID: id, From: from, To: to, Networks: networks}
}

// addresses makes a resolver of one answer.
func addresses(list ...string) resolver {
	return func(context.Context, string) ([]netip.Addr, error) {
		var addrs []netip.Addr
		for _, text := range list {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		return addrs, nil
	}
}

// The corpus of addresses by which a tunnel could reach the machine Doorward runs
// on, or what its network tells to nobody else. None is dialed unless the
// configuration is about it and nothing else.
func TestTunnelsDoNotLeadToDelicateAddresses(t *testing.T) {
	delicate := []string{
		"127.0.0.1", "127.8.9.10", "::1", "169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "::127.0.0.1",
	}
	everything := &destination{from: "*.any.example:22", networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	named := &destination{from: "a.example:22", to: []string{"inside.example:22"}}
	nobody := func(netip.AddrPort) bool { return false }
	for _, d := range []*destination{everything, named} {
		for _, text := range delicate {
			for _, answer := range [][]string{{text}, {"10.1.2.3", text}} { // also among good ones
				list, err := d.resolve(t.Context(), d.targets("host.any.example:22")[0], addresses(answer...), nobody)
				if access.ReasonOf(err) != access.TargetProhibited {
					t.Errorf("%v, %s: %v %v", d.networks, answer, list, err)
				}
			}
		}
		if list, err := d.resolve(t.Context(), d.targets("host.any.example:22")[0], addresses("10.1.2.3", "2001:db8::1"), nobody); err != nil || len(list) != 2 {
			t.Errorf("%v: %v %v", d.networks, list, err)
		}
	}
	own := func(at netip.AddrPort) bool { return at == netip.MustParseAddrPort("10.1.2.3:443") }
	if _, err := everything.resolve(t.Context(), "x.any.example:443", addresses("10.1.2.3"), own); access.ReasonOf(err) != access.TargetProhibited {
		t.Errorf("Doorward's own listener: %v", err)
	}
	for network, addr := range map[string]string{"127.0.0.1/32": "127.0.0.1", "127.0.0.0/8": "127.9.9.9", "169.254.169.254/32": "169.254.169.254", "fe80::/64": "fe80::1"} {
		d := &destination{networks: []netip.Prefix{netip.MustParsePrefix(network)}}
		if _, err := d.resolve(t.Context(), "x.example:22", addresses(addr), nobody); err != nil {
			t.Errorf("%s is listed: %v", addr, err)
		}
	}
	wide := &destination{networks: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}}
	if _, err := wide.resolve(t.Context(), "x.example:80", addresses("169.254.169.254"), nobody); err == nil {
		t.Error("the metadata service is reached by a list of link-local addresses")
	}
	local := &destination{to: []string{"localhost:22"}}
	if _, err := local.resolve(t.Context(), "localhost:22", addresses("127.0.0.1", "::1"), nobody); err != nil {
		t.Errorf("localhost in `to`: %v", err)
	}
	if _, err := local.resolve(t.Context(), "localhost:22", addresses("169.254.169.254"), nobody); err == nil {
		t.Error("localhost leads elsewhere")
	}
	literal := &destination{to: []string{"127.0.0.1:22"}}
	if list, err := literal.resolve(t.Context(), "127.0.0.1:22", nil, nobody); err != nil || list[0].String() != "127.0.0.1:22" {
		t.Errorf("an address in `to`: %v %v", list, err)
	}
}

// What is dialed is the address that was checked, however names are answered a
// moment later.
func TestTheCheckedAddressIsDialed(t *testing.T) {
	d := &destination{networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	asked := 0
	rebinding := func(context.Context, string) ([]netip.Addr, error) {
		asked++
		if asked == 1 {
			return []netip.Addr{netip.MustParseAddr("10.1.2.3")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	var dialed []string
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		dialed = append(dialed, network+" "+address)
		return nil, errors.New("not here")
	}
	nobody := func(netip.AddrPort) bool { return false }
	d.connect(t.Context(), "x.example:22", rebinding, dial, nobody)
	if fmt.Sprint(dialed) != "[tcp 10.1.2.3:22]" || asked != 1 {
		t.Errorf("dialed %v after %d questions", dialed, asked)
	}
	d.connect(t.Context(), "x.example:22", rebinding, dial, nobody)
	if len(dialed) != 1 {
		t.Errorf("dialed %v", dialed)
	}
}

func TestNumbersAreNoNames(t *testing.T) {
	for _, host := range []string{"2130706433:22", "0x7f000001:22", "0177.0.0.1:22", "127.1:22", "0x7f.0.0.1:22", "127.0.0.0x1:22", "010.1.2.3:22", "1.2.3.256:22", "host.123:22",
		"host:0", "host:65536", "host:", "host", ":22", "a@b:22", "host.:22", "[fe80::1%25eth0]:22", "[::1:22", "ho st:22"} {
		if got, err := canonicalTarget(host); err == nil {
			t.Errorf("%s is taken for %s", host, got)
		}
	}
	for host, want := range map[string]string{"Build.Corp.Example:022": "build.corp.example:22", "10.1.2.3:22": "10.1.2.3:22", "[2001:DB8:0::1]:22": "[2001:db8::1]:22",
		"h4x0r.example:22": "h4x0r.example:22", "a.0xg:1": "a.0xg:1"} {
		if got, err := canonicalTarget(host); err != nil || got != want {
			t.Errorf("%s: %s %v", host, got, err)
		}
	}
}

// Every key of a route that means nothing to a tunnel is a fault with a cure.
func TestTunnelRoutesAreChecked(t *testing.T) {
	bad := map[string]access.Route{
		"from":              {From: "tcp://build.example", To: []string{"tcp://10.1.2.3:22"}},
		"to":                {From: "tcp://build.example:22"},
		"to[0]":             {From: "tcp://build.example:22", To: []string{"https://10.1.2.3"}},
		"networks[0]":       {From: "tcp://build.example:22", Networks: []string{"10.1.2.3"}},
		"public":            {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, Public: []access.Public{{Name: "x"}}},
		"headers":           {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, Headers: map[string]string{"X-User": "user"}},
		"websocket":         {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, WebSocket: true},
		"rules":             {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, Rules: []access.Stricter{{}}},
		"allow[0].methods":  {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, Allow: []access.Rule{{Methods: []string{"GET"}}}},
		"deny[0].paths":     {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, Deny: []access.Rule{{Paths: []string{"/"}}}},
		"insecure_upstream": {From: "tcp://build.example:22", To: []string{"tcp://10.1.2.3:22"}, InsecureUpstream: "x"},
	}
	for path, route := range bad {
		route.ID = "x"
		_, faults := NewTable([]access.Route{route})
		if len(faults) != 1 || faults[0].Path != "routes[0]."+path || faults[0].Cure == "" {
			t.Errorf("%s: %+v", path, faults)
		}
	}
	for _, from := range []string{"tcp://2130706433:22", "tcp://0x7f.1:22", "tcp://*:22", "tcp://a.example:22/x", "tcp://user@a.example:22", "tcp:a:22"} {
		if _, faults := NewTable([]access.Route{tunnelRoute("x", from, []string{"tcp://10.1.2.3:22"})}); len(faults) != 1 {
			t.Errorf("%s: %+v", from, faults)
		}
	}
	if _, faults := NewTable([]access.Route{tunnelRoute("a", "tcp://a.example:22", []string{"tcp://10.1.2.3:22"}), tunnelRoute("b", "tcp://A.example:022", []string{"tcp://10.1.2.3:22"})}); len(faults) != 1 || !strings.Contains(faults[0].Text, "also the address") {
		t.Errorf("a tie: %+v", faults)
	}
	if _, faults := NewTable([]access.Route{{ID: "x", From: "https://a.example", To: []string{"https://b.example"}, Networks: []string{"10.0.0.0/8"}}}); len(faults) != 1 || faults[0].Path != "routes[0].networks" {
		t.Errorf("networks of an HTTP route: %+v", faults)
	}
	table := table(t, tunnelRoute("one", "tcp://one.corp.example:22", []string{"tcp://10.1.2.3:22"}), tunnelRoute("range", "tcp://*.corp.example:22", nil, "10.0.0.0/8"))
	for host, want := range map[string]string{"one.corp.example:22": "one", "two.corp.example:22": "range", "one.corp.example:23": "", "a.b.corp.example:22": "", "corp.example:22": ""} {
		got := ""
		if entry := table.Match("tcp", host, "/"); entry != nil {
			got = entry.Route.ID
		}
		if got != want {
			t.Errorf("%s finds %q, not %q", host, got, want)
		}
	}
}
