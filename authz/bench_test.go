package authz

import (
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// fiveRules is a route on which an allowed request passes five rules, and is
// allowed by the last.
func fiveRules() Input {
	in := billing()
	rt := &in.Routes[0]
	rt.Deny = []access.Rule{
		{Name: "d1", Methods: []string{"DELETE"}, Networks: []string{"203.0.113.0/24"}},
		{Name: "d2", Paths: []string{"/admin/**", "/**/internal/*"}, Groups: []string{"finance"}},
	}
	rt.Allow = []access.Rule{
		{Name: "a1", Groups: []string{"finance"}, Methods: []string{"GET"}},
		{Name: "a2", Users: []string{"corp:boss"}, Claims: map[string][]string{"department": {"Sales"}}},
		{Name: "a3", Groups: []string{"engineers"}, Methods: []string{"GET", "HEAD"}, Paths: []string{"/**"},
			Networks: []string{"10.0.0.0/8"}, Time: access.TimeWindow{Days: "mon-fri", Hours: "08:00-18:00", Zone: "Europe/Berlin"}},
	}
	return in
}

func TestAllowedRequestDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p, req := compile(t, fiveRules()), good()
	if d := p.Decide(req); d.Rule != "allow/a3" {
		t.Fatalf("got %+v", d)
	}
	if n := testing.AllocsPerRun(1000, func() { p.Decide(req) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchmark(b *testing.B, in Input, req *access.Request, want access.Outcome) {
	p := compile(b, in)
	if d := p.Decide(req); d.Outcome != want {
		b.Fatalf("got %+v", d)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(req)
	}
}

func BenchmarkDecideAllow(b *testing.B) { benchmark(b, fiveRules(), good(), access.Allow) }

func BenchmarkDecidePublic(b *testing.B) {
	benchmark(b, fiveRules(), with(func(r *access.Request) { r.Path = "/health" }), access.Allow)
}

func BenchmarkDecideChallenge(b *testing.B) {
	benchmark(b, fiveRules(), with(func(r *access.Request) { r.Device = access.Device{} }), access.Challenge)
}

func BenchmarkDecideDeny(b *testing.B) {
	benchmark(b, fiveRules(), with(func(r *access.Request) { r.Identity.Groups = nil }), access.Deny)
}

func BenchmarkDecideCEL(b *testing.B) {
	in := fiveRules()
	in.Routes[0].Allow[2].When = "user.email.endsWith('@example.com') && device.os == 'macos'"
	benchmark(b, in, good(), access.Allow)
}
