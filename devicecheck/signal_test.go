package devicecheck

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// signalled collects the signals of an Inspector.
type signalled struct {
	mu   sync.Mutex
	list []string
}

func (s *signalled) take(one access.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, string(one.Reason)+" "+one.Device)
}

func (s *signalled) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	slices.Sort(list)
	return list
}

func TestChangedFactsAreSignalled(t *testing.T) {
	var got signalled
	s := &source{Source: Source{ID: "corp"}, now: func() time.Time { return noon }, log: discard, signal: got.take}
	s.state.Store(&state{})
	read := func(text string, err error) []string {
		s.fetcher = &scripted{answer: func(_ int, have *inventory) (*inventory, error) {
			if err != nil || have != nil && have.version == text {
				return have, err
			}
			return parsed(t, text), nil
		}}
		s.load(t.Context())
		return got.taken()
	}
	const base = `{"id": "a", "compliant": true, "last_seen": "2026-11-23T08:00:00Z"}, {"id": "b", "compliant": true}, {"id": "c"}`
	var many strings.Builder
	for n := range maxSignals + 1 {
		fmt.Fprintf(&many, `{"id": "m%d"},`, n)
	}
	for _, step := range []struct {
		name, text string
		err        error
		want       []string
	}{
		{"the first answer may speak for any device", "[" + base + "]", nil, []string{"device_changed "}},
		{"nothing new", "[" + base + " ]", nil, nil},
		{"seen since", strings.Replace("["+base+"]", "T08", "T09", 1), nil, nil},
		{"seen earlier than was said", "[" + base + "]", nil, []string{"device_changed a"}},
		{"worse, better and gone", `[{"id": "a", "compliant": false, "last_seen": "2026-11-23T08:00:00Z"}, {"id": "b", "compliant": true}, {"id": "d"}]`, nil,
			[]string{"device_changed d", "device_not_compliant a", "device_unknown c"}},
		{"the inventory goes away", "", errors.New("status 500"), []string{"device_source_unavailable "}},
		{"and stays away", "", errors.New("status 502"), nil},
		{"and comes back with news", `[{"id": "a", "compliant": false, "last_seen": "2026-11-23T08:00:00Z"}, {"id": "b"}, {"id": "d"}]`, nil, []string{"device_changed b"}},
		{"too many to list", "[" + many.String() + base + "]", nil, []string{"device_changed "}},
	} {
		if got := read(step.text, step.err); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

// TestEveryFactOfAnInventoryIsCompared: a field that is added to a device and
// forgotten in sameFacts would leave connections open.
func TestEveryFactOfAnInventoryIsCompared(t *testing.T) {
	perRequest := []string{"MatchedBy", "Source", "ByCertificate", "ByClaim", "Owned", "ObservedAt", "SourceFailingSince", "SourceFailing", "Problem", "Certificate"}
	good := access.Device{ID: "a", SeenAt: noon}
	for n := range reflect.TypeFor[access.Device]().NumField() {
		field := reflect.TypeFor[access.Device]().Field(n)
		if slices.Contains(perRequest, field.Name) {
			continue
		}
		changed := good
		switch v := reflect.ValueOf(&changed).Elem().Field(n); v.Interface().(type) {
		case string:
			v.SetString("other")
		case access.Tri, access.Risk:
			v.SetUint(2)
		case time.Time:
			v.Set(reflect.ValueOf(noon.Add(-time.Hour)))
		case []string:
			v.Set(reflect.ValueOf([]string{"other"}))
		default:
			t.Fatalf("%s is a %s: teach this test, and sameFacts", field.Name, field.Type)
		}
		if sameFacts(&good, &changed) {
			t.Errorf("%s is not compared", field.Name)
		}
	}
	changed := good
	changed.Certificate.Serial = "01"
	if sameFacts(&good, &changed) {
		t.Error("the certificate is not compared")
	}
}

// Whoever decides again because of a signal sees the facts it is about, however
// the sources swap meanwhile.
func TestSignalsComeAfterTheSwap(t *testing.T) {
	const rounds = 50
	var i *Inspector
	var late, signals atomic.Int32
	var answers [3]atomic.Int32
	config := Config{Match: []string{"claim.id"}}
	for n := range answers {
		s := polled(0).Sources[0]
		s.ID, s.URL = fmt.Sprint("s", n), fmt.Sprintf("https://inventory.example/%d", n)
		config.Sources = append(config.Sources, s)
	}
	i = newInspector(t, Options{Config: config,
		Transport: perPath(func(path string) string {
			n := path[1] - '0'
			return fmt.Sprintf(`[{"id": "d%d", "compliant": %v}]`, n, answers[n].Load()%2 == 0)
		}),
		Signal: func(s access.Signal) {
			signals.Add(1)
			n := s.Device[1] - '0'
			req := claiming(map[string]any{"id": s.Device})
			i.Inspect(&http.Request{}, req)
			if want := access.TriOf(answers[n].Load()%2 == 0); req.Device.Compliant != want {
				late.Add(1)
			}
		}})
	var all sync.WaitGroup
	for n, s := range i.sources {
		all.Go(func() {
			for range rounds {
				answers[n].Add(1)
				s.load(context.Background())
			}
		})
	}
	all.Wait()
	if late.Load() > 0 || signals.Load() != rounds*int32(len(answers)) {
		t.Errorf("%d signals, %d of them before the swap", signals.Load(), late.Load())
	}
}

// perPath answers by the path of a request.
type perPath func(path string) string

func (p perPath) RoundTrip(r *http.Request) (*http.Response, error) {
	return server(func() (string, error) { return p(r.URL.Path), nil }).RoundTrip(r)
}

func TestNonCompliantSinceIsWhenItWasFirstRead(t *testing.T) {
	now, answer := noon, ""
	i := newInspector(t, Options{Config: polled(0), Now: func() time.Time { return now }, Transport: server(func() (string, error) { return answer, nil })})
	for _, step := range []struct {
		name, compliant string
		since           time.Duration // after noon, -1 for unknown
	}{
		{"never seen compliant", "false", -1},
		{"compliant", "true", -1},
		{"newly failing", "false", 3},
		{"still failing", `false, "os": "linux"`, 3},
		{"not known", "null", -1},
		{"failing, and nobody saw it begin", "false", -1},
	} {
		now = now.Add(time.Hour)
		answer = `[{"id": "a", "compliant": ` + step.compliant + `}]`
		i.sources[0].load(t.Context())
		want := time.Time{}
		if step.since >= 0 {
			want = noon.Add(step.since * time.Hour)
		}
		if d := known(t, i, "a"); !d.NonCompliantSince.Equal(want) {
			t.Errorf("%s: since %v, want %v", step.name, d.NonCompliantSince, want)
		}
	}
	// An inventory that grants a grace period has said when it begins to count.
	inv := parsed(t, `[{"id": "a", "compliant": false}, {"id": "b", "compliant": false}]`)
	inv.devices[0].GraceUntil = noon.Add(time.Hour)
	inv.follow(nil, noon)
	if !inv.devices[0].NonCompliantSince.Equal(noon) || !inv.devices[1].NonCompliantSince.IsZero() {
		t.Errorf("%+v", inv.devices)
	}
}
