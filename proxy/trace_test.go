package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Nobody pays for traces that nobody wants.
func TestUntracedRequestsCostNothing(t *testing.T) {
	p := &passage{door: &Door{}, gen: &generation{Snapshot: &Snapshot{}}, in: httptest.NewRequest("GET", "/", nil), event: &access.Event{}}
	answer := &http.Response{StatusCode: 200}
	way := roundTripper(func(*http.Request) (*http.Response, error) { return answer, nil })
	allocs := testing.AllocsPerRun(1000, func() {
		p.receiveTrace(netip.Addr{})
		p.beginTrace()
		r, end := p.part("identify")
		end(access.StoreUnavailable)
		if _, err := tracedRoundTrip(way, r); err != nil || r != p.in {
			t.Fatal(err)
		}
		p.endTrace()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// traceNotes is a Tracer that notes what it is told.
type traceNotes struct {
	parent http.Header
	parts  []string
	ended  []*access.Event
}

func (n *traceNotes) Trace(ctx context.Context, _ time.Time, parent http.Header) (context.Context, Trace) {
	n.parent = parent.Clone()
	return ctx, n
}

func (n *traceNotes) ID() string { return "4bf92f3577b34da6a3ce929d0e0e4736" }

func (n *traceNotes) Part(ctx context.Context, name string) (context.Context, func(access.Reason)) {
	return ctx, func(why access.Reason) { n.parts = append(n.parts, name+" "+string(why)) }
}

func (n *traceNotes) Attempt(out *http.Request, _ int) func(int, access.Reason) {
	out.Header.Set("Traceparent", "ours")
	return func(int, access.Reason) {}
}

func (n *traceNotes) End(e *access.Event) { n.ended = append(n.ended, e.Clone()) }

// Every request is one trace, however it ends: refused before it is looked at, by
// its facts, by the policy, or answered.
func TestEveryRequestIsOneTrace(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Traceparent"); got != "ours" || r.Header.Get("Baggage") != "" {
			t.Errorf("the application got %q, baggage %q", got, r.Header.Get("Baggage"))
		}
	}))
	defer app.Close()
	for name, c := range map[string]struct {
		target, cookie string
		status         int
		part           string
	}{
		"allowed":      {"/", "alice", 200, "identify "},
		"no login":     {"/", "", 401, "identify "},
		"store broken": {"/", "broken", 503, "identify store_unavailable"},
		"ambiguous":    {"/a%2fb", "alice", 400, ""},
		"a bug":        {"/", "panic", 500, ""},
	} {
		notes := &traceNotes{}
		w := newWorld(t, []access.Route{routeTo("http://app.example", app)})
		w.door.tracer = notes
		r, _ := http.NewRequest("GET", "http://app.example"+c.target, nil)
		r.Header = http.Header{"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, "Baggage": {"a=b"}, "Accept": {"application/json"}}
		if c.cookie != "" {
			r.Header.Set("Cookie", "doorward="+c.cookie)
		}
		res, err := w.transport().RoundTrip(r)
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s: %v, %v", name, res, err)
			continue
		}
		res.Body.Close()
		e := w.rec.event(t)
		if len(notes.ended) != 1 || !reflect.DeepEqual(notes.ended[0], e) || e.TraceID != notes.ID() || len(notes.parent) != 0 {
			t.Errorf("%s: %d ends, parent %v, recorded under %q", name, len(notes.ended), notes.parent, e.TraceID)
		}
		if c.part != "" && (len(notes.parts) == 0 || notes.parts[0] != c.part) {
			t.Errorf("%s: %q", name, notes.parts)
		}
	}
}
