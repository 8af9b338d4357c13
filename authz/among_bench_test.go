package authz

import (
	"fmt"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// manyRoutes are routes of ten rules each, of which the last one allows.
func manyRoutes(n int) Input {
	in := billing()
	one := in.Routes[0]
	one.Public, one.Deny, one.Allow = nil, nil, nil
	for i := range 4 {
		one.Deny = append(one.Deny, access.Rule{Name: fmt.Sprint("d", i), Methods: []string{"DELETE"}, Paths: []string{fmt.Sprintf("/area%d/**", i)}})
	}
	for i := range 5 {
		one.Allow = append(one.Allow, access.Rule{Name: fmt.Sprint("a", i), Groups: []string{"finance"}, Paths: []string{fmt.Sprintf("/part%d/*", i)}})
	}
	one.Allow = append(one.Allow, access.Rule{Name: "engineers", Groups: []string{"engineers"}, Methods: []string{"GET", "HEAD"}, Paths: []string{"/**"}, Networks: []string{"10.0.0.0/8"}})
	in.Routes = nil
	for i := range n {
		one.ID = fmt.Sprint("route-", i)
		one.From, one.To = fmt.Sprintf("https://app-%d.example.com", i), []string{"https://10.0.0.1"}
		in.Routes = append(in.Routes, one)
	}
	return in
}

// BenchmarkDecideAmong finds the route and decides, for one application that is
// in use ("one") and for all applications in turn ("each"): then it is the
// processor's caches that ten thousand routes do not fit into. x-ten is the cost
// as a multiple of that with ten routes.
func BenchmarkDecideAmong(b *testing.B) {
	for _, kind := range []string{"one", "each"} {
		var ten float64
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				in := manyRoutes(n)
				p := compile(b, in)
				table, faults := proxy.NewTable(in.Routes)
				if len(faults) > 0 {
					b.Fatal(faults)
				}
				hosts := make([]string, n)
				for i := range hosts {
					hosts[i] = fmt.Sprintf("app-%d.example.com", i)
				}
				req, i := good(), 0
				b.ReportAllocs()
				for b.Loop() {
					if kind == "each" {
						i = (i + 7919) % n // a prime, so that no cache foresees it
					}
					req.Host = hosts[i]
					req.Route = table.Match(req.Scheme, req.Host, req.Path).Route.ID
					if d := p.Decide(req); d.Outcome != access.Allow {
						b.Fatalf("%+v", d)
					}
				}
				each := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
				if ten == 0 {
					ten = each
				}
				b.ReportMetric(each/ten, "x-ten")
			})
		}
	}
}

// One decision among ten thousand routes does not allocate either.
func TestDecidingAmongManyRoutesDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p, req := compile(t, manyRoutes(1000)), good()
	req.Route = "route-500"
	if d := p.Decide(req); d.Rule != "allow/engineers" {
		t.Fatalf("got %+v", d)
	}
	if n := testing.AllocsPerRun(1000, func() { p.Decide(req) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
