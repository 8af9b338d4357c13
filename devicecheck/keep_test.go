package devicecheck

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// cellar is a Keeper in memory.
type cellar struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
	// refuse makes the given call of Put fail, and all that follow. 0: none.
	refuse int
}

var errCellar = errors.New("the cellar is flooded")

func (c *cellar) Get(_ context.Context, name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.values[name]), nil
}

func (c *cellar) Put(_ context.Context, name string, value []byte, _ time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.puts++; c.refuse > 0 && c.puts >= c.refuse {
		return errCellar
	}
	if c.values == nil {
		c.values = map[string][]byte{}
	}
	c.values[name] = bytes.Clone(value)
	return nil
}

// server is a transport whose answer the test decides on.
type server func() (string, error)

func (s server) RoundTrip(*http.Request) (*http.Response, error) {
	text, err := s()
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// polled is the configuration of one remote inventory read every minute.
func polled(lastKnown time.Duration) Config {
	return Config{
		Sources: []Source{{ID: "corp", Type: "http", URL: "https://inventory.example/devices", Refresh: access.Duration(time.Minute),
			Fields: map[string]Field{"id": {Path: "id"}, "compliant": {Path: "compliant"}, "last_seen": {Path: "last_seen"}}}},
		Match:        []string{"claim.id"},
		DevicePolicy: access.DevicePolicy{OnUnavailable: access.OnUnavailable{UseLastKnown: access.Duration(lastKnown)}},
	}
}

// runFor runs an Inspector for some time on the clock of the bubble.
func runFor(t *testing.T, opts Options, d time.Duration) *Inspector {
	t.Helper()
	opts.Now, opts.Rand = time.Now, func() float64 { return 0 }
	i := newInspector(t, opts)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	i.Run(ctx)
	return i
}

func asOfNow(t *testing.T, i *Inspector, id string) access.Device {
	req := claiming(map[string]any{"id": id})
	req.Time = time.Now()
	return inspect(t, i, &http.Request{}, req)
}

// A restart forgets nothing and freshens nothing: the facts, their age and the
// beginning of an outage are those from before.
func TestKeptSnapshotOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keep, up := &cellar{}, true
		answer := `[{"id": "a", "compliant": true, "last_seen": "2000-01-01T00:00:00Z"}]`
		world := Options{Config: polled(time.Hour), Keep: keep, Transport: server(func() (string, error) {
			if !up {
				return "", errors.New("connection refused")
			}
			return answer, nil
		})}
		start := time.Now()
		runFor(t, world, 90*time.Second) // reads at 0s and 60s
		up = false
		failing := runFor(t, world, 10*time.Second) // a restart at 90s, with a dead source
		d := asOfNow(t, failing, "a")
		if d.Compliant != access.Yes || !d.ObservedAt.Equal(start.Add(time.Minute)) || !d.SourceFailingSince.Equal(start.Add(time.Minute)) || !d.SeenAt.Equal(start) {
			t.Errorf("after the first restart: %+v", d)
		}

		// Another restart half an hour later: the outage is no younger for it.
		time.Sleep(30 * time.Minute)
		before := time.Now()
		again := newInspector(t, Options{Config: world.Config, Keep: keep, Transport: world.Transport, Now: time.Now})
		if waited := time.Since(before); waited != 0 {
			t.Errorf("the start waited %v for a dead inventory", waited)
		}
		if d := asOfNow(t, again, "a"); d.Compliant != access.Yes || !d.SourceFailingSince.Equal(start.Add(time.Minute)) || !d.ObservedAt.Equal(start.Add(time.Minute)) {
			t.Errorf("after the second restart: %+v", d)
		}
		if d := asOfNow(t, again, "b"); d.Known != access.Unknown {
			t.Errorf("a kept snapshot cannot say that a device is not known: %+v", d)
		}

		// Once the source is back, its word counts.
		up, answer = true, `[{"id": "a", "compliant": false}]`
		if d := asOfNow(t, runFor(t, world, time.Second), "a"); d.Compliant != access.No || !d.SourceFailingSince.IsZero() || !d.NonCompliantSince.Equal(time.Now().Add(-time.Second)) {
			t.Errorf("once the source is back: %+v", d)
		}

		// Another address is another inventory, and a policy that lets nothing
		// count waits for the first reading.
		world.Config.Sources[0].URL = "https://elsewhere.example/devices"
		if d := asOfNow(t, newInspector(t, Options{Config: world.Config, Keep: keep, Transport: server(func() (string, error) { return "", io.EOF }), Now: time.Now}), "a"); d.Known != access.Unknown {
			t.Errorf("the snapshot of another inventory was used: %+v", d)
		}
	})
}

func TestStartWaitsWhereNothingKeptCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keep := &cellar{}
		world := Options{Config: polled(0), Keep: keep, Transport: server(func() (string, error) { return `[{"id": "a", "compliant": true}]`, nil })}
		runFor(t, world, time.Second)
		reads := 0
		world.Transport = server(func() (string, error) { reads++; return `[{"id": "a", "compliant": false}]`, nil })
		world.Now = time.Now
		if d := asOfNow(t, newInspector(t, world), "a"); d.Compliant != access.No || reads != 1 {
			t.Errorf("%d readings: %+v", reads, d)
		}
	})
}

// A snapshot that was cut off, mixed up or changed is none.
func TestSpoiltSnapshotIsNone(t *testing.T) {
	good := &cellar{}
	s := Source{ID: "corp"}
	clock := func() time.Time { return noon }
	inv := parsed(t, `[{"id": "a", "compliant": true}]`)
	if err := newKept(good, s, clock, discard).write(t.Context(), &state{inv: inv, observedAt: noon}); err != nil {
		t.Fatal(err)
	}
	if len(good.values) != 2 {
		t.Fatalf("%q", good.values)
	}
	load := func(c *cellar) *state { return newKept(c, s, clock, discard).load(&state{source: "corp"}) }
	if st := load(good); st.inv == nil || !st.observedAt.Equal(noon) || st.inv.version != inv.version {
		t.Fatalf("%+v", st)
	}
	for name, value := range good.values {
		for n := range value {
			spoilt := &cellar{values: map[string][]byte{}}
			for other, kept := range good.values {
				spoilt.values[other] = bytes.Clone(kept)
			}
			spoilt.values[name][n] ^= 4
			// What a change of the head can alter without being noticed here is
			// sealed by whoever keeps it; no change of a part is.
			if st := load(spoilt); strings.HasSuffix(name, "/head") {
				continue
			} else if st.inv != nil {
				t.Fatalf("byte %d of %s was changed: %+v", n, name, st)
			}
		}
		missing := &cellar{values: map[string][]byte{}}
		for other, kept := range good.values {
			if other != name {
				missing.values[other] = kept
			}
		}
		if st := load(missing); st.inv != nil {
			t.Fatalf("without %s: %+v", name, st)
		}
	}
	early := newKept(good, s, func() time.Time { return noon.Add(-time.Hour) }, discard).load(&state{})
	if early.inv != nil {
		t.Errorf("a snapshot from the future: %+v", early)
	}
}

// Wherever writing breaks off, what can be read is the snapshot before or the
// new one, whole.
func TestKeepingThatBreaksOffSpoilsNothing(t *testing.T) {
	old, b := parsed(t, `[{"id": "a"}]`), newBuilder("f", "next")
	random := rand.NewChaCha8([32]byte{}) // which does not compress
	for n := range 8000 {
		name := make([]byte, 128)
		random.Read(name)
		b.add(access.Device{ID: strconv.Itoa(n), Name: hex.EncodeToString(name)}, n+1, 1)
	}
	next, err := b.done()
	if err != nil {
		t.Fatal(err)
	}
	for refuse := 1; ; refuse++ {
		c := &cellar{}
		k := newKept(c, Source{ID: "corp"}, func() time.Time { return noon }, discard)
		if err := k.write(t.Context(), &state{inv: old, observedAt: noon.Add(-time.Minute)}); err != nil {
			t.Fatal(err)
		}
		c.puts, c.refuse = 0, refuse
		err := k.write(t.Context(), &state{inv: next, observedAt: noon})
		st := newKept(c, Source{ID: "corp"}, func() time.Time { return noon }, discard).load(&state{})
		if st.inv == nil || err != nil && st.size() != 1 || err == nil && st.size() != 8000 {
			t.Fatalf("refused from put %d, %v: %d devices", refuse, err, st.size())
		}
		if err == nil {
			if refuse < 4 {
				t.Fatalf("it was kept in %d puts, so nothing was cut", refuse-1)
			}
			return
		}
	}
}

func TestKeepingSparesTheStoreAndItsFailureIsNoOutage(t *testing.T) {
	c, now := &cellar{}, noon
	var log bytes.Buffer
	k := newKept(c, Source{ID: "corp"}, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	inv := parsed(t, `[{"id": "a"}]`)
	for n, want := range []int{2, 2, 3, 3, 4} { // parts and head, nothing, the head every 30 seconds
		k.keep(t.Context(), &state{inv: inv, observedAt: now})
		if c.puts != want {
			t.Errorf("after reading %d: %d puts, want %d", n+1, c.puts, want)
		}
		now = now.Add(16 * time.Second)
	}
	failing := &state{inv: inv, observedAt: now.Add(-16 * time.Second), failingSince: now}
	k.keep(t.Context(), failing)
	if st := newKept(c, Source{ID: "corp"}, func() time.Time { return now }, discard).load(&state{}); !st.failingSince.Equal(now) {
		t.Errorf("the beginning of the outage was not kept: %+v", st)
	}
	now = now.Add(renewKept)
	k.keep(t.Context(), &state{inv: inv, observedAt: now})
	if c.puts != 7 {
		t.Errorf("the parts were not renewed before they expire: %d puts", c.puts)
	}

	c.refuse = 1
	for range 3 {
		k.keep(t.Context(), &state{inv: parsed(t, `[{"id": "b"}]`), observedAt: now})
	}
	c.refuse = 0
	k.keep(t.Context(), &state{inv: inv, observedAt: now})
	if got := log.String(); strings.Count(got, "cannot be kept") != 1 || strings.Count(got, "is kept again") != 1 {
		t.Errorf("logged:\n%s", got)
	}
}

// A replica that lags behind does not replace what a faster one has kept.
func TestTheLaterReadingIsKept(t *testing.T) {
	c, clock := &cellar{}, func() time.Time { return noon }
	fast, slow := newKept(c, Source{ID: "corp"}, clock, discard), newKept(c, Source{ID: "corp"}, clock, discard)
	fast.keep(t.Context(), &state{inv: parsed(t, `[{"id": "new"}]`), observedAt: noon})
	slow.keep(t.Context(), &state{inv: parsed(t, `[{"id": "old"}]`), observedAt: noon.Add(-time.Minute)})
	if st := newKept(c, Source{ID: "corp"}, clock, discard).load(&state{}); st.inv.find(idKey, "new") == nil {
		t.Errorf("%+v", st.inv.devices)
	}
}

func TestPackedInventoriesComeBackWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBuilder("f", "v")
		for n, d := range drawDevices(t) {
			d.GraceUntil, d.NonCompliantSince = noon.Add(time.Duration(n)), noon
			b.add(d, n+1, 1)
		}
		inv, err := b.done()
		if err != nil {
			t.Skip("no inventory")
		}
		packed, err := pack(inv)
		if err != nil {
			t.Fatal(err)
		}
		back, err := unpack(bytes.NewReader(packed), "v")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, inv) {
			t.Fatalf("%+v\nbecame\n%+v", inv, back)
		}
	})
}

var discard = slog.New(slog.DiscardHandler)
