package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
)

// inventory is a server that lists one laptop, seen at this very moment.
type inventory struct{ down, compliant atomic.Bool }

func (i *inventory) RoundTrip(*http.Request) (*http.Response, error) {
	if i.down.Load() {
		return nil, errors.New("connection refused")
	}
	body := fmt.Sprintf(`[{"id": "laptop", "compliant": %v, "last_seen": %q}]`, i.compliant.Load(), time.Now().UTC().Format(time.RFC3339))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// door decides on a laptop as a running doorward does, by its inventory.
type door struct {
	t       *testing.T
	policy  *authz.Policy
	devices *devicecheck.Inspector
	stop    func()
}

func devicesOf(unavailable access.OnUnavailable) devicecheck.Config {
	return devicecheck.Config{
		Sources: []devicecheck.Source{{ID: "corp", Type: "http", URL: "https://inventory.example/devices", Refresh: access.Duration(time.Minute),
			Fields: map[string]devicecheck.Field{"id": {Path: "id"}, "compliant": {Path: "compliant"}, "last_seen": {Path: "last_seen"}}}},
		Match: []string{"claim.deviceid"},
		DevicePolicy: access.DevicePolicy{
			Profiles: map[string]access.Profile{"healthy": {All: []string{"compliant"}}}, MaxAge: access.Duration(24 * time.Hour), OnUnavailable: unavailable,
		},
	}
}

func open(t *testing.T, s store.Store, inv *inventory, unavailable access.OnUnavailable) *door {
	t.Helper()
	conf := devicesOf(unavailable)
	policy, faults := authz.Compile(authz.Input{
		Providers: []string{"corp"}, Devices: conf.DevicePolicy,
		Routes: []access.Route{{ID: "app", Require: access.Require{Device: "healthy"}, Allow: []access.Rule{{Name: "all", AnyUser: true}}}},
	})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	devices, err := devicecheck.New(devicecheck.Options{
		Config: conf, Transport: inv, Now: time.Now, Rand: func() float64 { return 0 },
		Keep: session.NewVault(s, "device", bytes.Repeat([]byte{7}, 32)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); devices.Run(ctx) }()
	return &door{t, policy, devices, func() { cancel(); <-done }}
}

// says checks what is decided at this moment.
func (d *door) says(when string, want access.Reason) {
	d.t.Helper()
	synctest.Wait()
	req := &access.Request{Time: time.Now(), Route: "app", Identity: access.Identity{
		Provider: "corp", Issuer: "https://login.example", Subject: "alice", Claims: map[string]any{"deviceid": "laptop"}}}
	if err := d.devices.Inspect(&http.Request{}, req); err != nil {
		d.t.Fatal(err)
	}
	if got := d.policy.Decide(req); got.Reason != want {
		d.t.Errorf("%s: %s, want %s (%+v)", when, got.Reason, want, req.Device)
	}
}

// TestOutageToTheSecond: with the inventory dead, what is decided follows
// devices.on_unavailable to the second, and no restart makes a difference.
func TestOutageToTheSecond(t *testing.T) {
	forAnHour := access.OnUnavailable{UseLastKnown: access.Duration(time.Hour)}
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept, inv := store.NewMemory(time.Now), &inventory{}
				defer kept.Close()
				inv.compliant.Store(true)
				d := open(t, kept, inv, forAnHour)
				time.Sleep(90 * time.Second)
				d.says("while it can be read", access.Allowed)

				// It goes away at 90s; the readings from 120s on fail. One reading
				// tries several times, so it is found to fail some seconds later.
				inv.down.Store(true)
				time.Sleep(2 * time.Minute)
				since := d.devices.Status()[0].FailingSince
				if since.IsZero() {
					t.Fatal("nobody noticed that it is gone")
				}
				if restart {
					d.stop()
					before := time.Now()
					d = open(t, kept, inv, forAnHour)
					if waited := time.Since(before); waited != 0 {
						t.Errorf("the start waited %v for a dead inventory", waited)
					}
				}
				d.says("a while later", access.Allowed)
				time.Sleep(time.Until(since.Add(time.Hour)))
				d.says("in the last second", access.Allowed)
				time.Sleep(time.Second)
				d.says("a second later", access.DeviceSourceUnavailable)
				if restart {
					d.stop()
					d = open(t, kept, inv, forAnHour)
					d.says("after another restart", access.DeviceSourceUnavailable)
				}

				inv.down.Store(false)
				time.Sleep(2 * time.Minute)
				d.says("when it is back", access.Allowed)
				d.stop()
			})
		})
	}
}

// TestOutageWithDeny: the default lets no device pass whose inventory is dead,
// from the first reading that fails, and no kept snapshot changes that.
func TestOutageWithDeny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, inv := store.NewMemory(time.Now), &inventory{}
		defer kept.Close()
		inv.compliant.Store(true)
		d := open(t, kept, inv, access.OnUnavailable{})
		time.Sleep(time.Second)
		d.says("while it can be read", access.Allowed)
		inv.down.Store(true)
		time.Sleep(2 * time.Minute)
		d.says("once a reading has failed", access.DeviceSourceUnavailable)
		d.stop()
		d = open(t, kept, inv, access.OnUnavailable{})
		d.says("after a restart", access.DeviceSourceUnavailable)
		d.stop()
	})
}

// TestNonCompliantWithinOnePoll: a device that its inventory no longer calls
// compliant is refused no later than one poll interval afterwards.
func TestNonCompliantWithinOnePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, inv := store.NewMemory(time.Now), &inventory{}
		defer kept.Close()
		inv.compliant.Store(true)
		d := open(t, kept, inv, access.OnUnavailable{})
		for n := range 5 {
			time.Sleep(time.Duration(n)*time.Second + 90*time.Second)
			d.says("compliant", access.Allowed)
			inv.compliant.Store(false)
			time.Sleep(time.Minute)
			d.says("one poll later", access.DeviceNotCompliant)
			inv.compliant.Store(true)
			time.Sleep(time.Minute)
		}
		d.stop()
	})
}

// TestForgedSnapshotOpensNothing: whoever can write the store cannot make a
// device compliant there.
func TestForgedSnapshotOpensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := store.NewMemory(time.Now), store.NewMemory(time.Now)
		defer ours.Close()
		defer theirs.Close()
		inv, forAnHour := &inventory{}, access.OnUnavailable{UseLastKnown: access.Duration(time.Hour)}
		d := open(t, ours, inv, forAnHour)
		time.Sleep(time.Second)
		d.says("not compliant", access.DeviceNotCompliant)
		d.stop()

		// The same inventory as an attacker would like it, kept by a deployment of
		// their own: right in everything but the key.
		wish := &inventory{}
		wish.compliant.Store(true)
		forged := session.NewVault(theirs, "device", bytes.Repeat([]byte{8}, 32))
		evil, err := devicecheck.New(devicecheck.Options{Config: devicesOf(forAnHour), Transport: wish, Now: time.Now, Keep: forged})
		if err != nil {
			t.Fatal(err)
		}
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		evil.Run(brief)
		copied := 0
		for item, err := range theirs.List(t.Context(), "device/") {
			if err != nil {
				t.Fatal(err)
			}
			item.Version = store.Any
			if _, err := ours.Put(t.Context(), item); err != nil {
				t.Fatal(err)
			}
			copied++
		}
		if copied < 2 {
			t.Fatalf("%d items were kept", copied)
		}
		inv.down.Store(true)
		d = open(t, ours, inv, forAnHour)
		d.says("after the forgery, with the inventory dead", access.DeviceSourceUnavailable)
		d.stop()
	})
}
