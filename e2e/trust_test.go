package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// A day of a device: it stops being compliant and is refused after the next
// reading; its user cures it, has it checked again and is let in; the operator
// sees the same by the command line. Then doorward is restarted while the
// inventory is dead, and relies on what it kept, for as long as the policy says.
func TestDeviceTrust(t *testing.T) {
	inventory := testidp.NewInventory("jamf", nil)
	vendor := httptest.NewServer(inventory)
	t.Cleanup(vendor.Close)
	laptop := access.Device{
		ID: "laptop-alice", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes, DiskEncrypted: access.Yes, Jailbroken: access.No,
		OS: "macos", OSVersion: "15.4", Owner: "alice@example.com", Name: "Alice's laptop", SeenAt: time.Now(),
	}
	inventory.Set(laptop)
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>this is the application</p>") })
	addr, adminAddr := freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	base := "http://app.localhost:" + port
	provider := startProvider(t, base+"/.doorward/callback", nil)
	dir := t.TempDir()
	writeFile(t, dir, "secret", "s3cret")
	writeFile(t, dir, "admin", strings.Repeat("admin", 8))
	writeFile(t, dir, "jamf", testidp.InventorySecret)
	text := fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q, token: {file: admin}}}
sessions: {store: {file: {path: doorward.db}}}
log: {format: text}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
devices:
  sources:
    - {id: jamf, type: jamf, url: %q, client_id: %s, client_secret: {file: jamf}, compliant_group: Compliant, refresh: 10s}
  match: [claim.deviceid]
  on_unavailable: {use_last_known: 1h}
  profiles: {encrypted: {all: [disk_encrypted], fix: "https://it.example.com/encrypt"}}
  tiers:
    - {name: basic, all: [known, managed, encrypted]}
    - {name: trusted, all: [compliant], fix: "https://it.example.com/comply"}
    - {name: full, min_os: {macos: "15.5"}}
routes:
  - {id: app, from: %s, to: [%s], require: {device: trusted}, allow: [{name: all, any_user: true}]}
`, addr, adminAddr, provider.Issuer(), vendor.URL, testidp.InventoryClient, base, app)
	config := writeFile(t, dir, "doorward.yaml", text)
	d := start(t, "doorward", "serve", "--config", config)
	d.waitFor("serving", 1)
	devices := func(args ...string) result {
		t.Helper()
		return run(t, "doorward", append([]string{"devices", "--config", config}, args...)...)
	}
	v := newVisitor(t)
	v.login(base+"/", "alice").says(t, 200, "this is the application")

	// The operator sees the tier, and why it is no higher one.
	var list struct {
		Sources []struct{ ID string }
		Devices []struct {
			ID, Tier string
			Failing  []string
		}
	}
	if out := devices("list", "-o", "json"); json.Unmarshal([]byte(out.stdout), &list) != nil || len(list.Sources) != 1 || len(list.Devices) != 1 ||
		list.Devices[0].Tier != "trusted" || fmt.Sprint(list.Devices[0].Failing) != "[full]" {
		t.Errorf("%+v", out)
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
		not  string
	}{
		{[]string{"list"}, 0, []string{"jamf", "READ", "laptop-alice", "alice@example.com", "macos 15.4", "trusted"}, ""},
		{[]string{"list", "--failing", "full"}, 0, []string{"laptop-alice"}, ""},
		{[]string{"list", "--failing", "trusted"}, 0, nil, "laptop-alice"},
		{[]string{"list", "--source", "jamf"}, 0, []string{"laptop-alice"}, ""},
		{[]string{"list", "--source", "other"}, 1, []string{`"other" is no inventory`, "jamf"}, "laptop-alice"},
		{[]string{"list", "--failing", "ful"}, 1, []string{"neither a profile nor a tier"}, ""},
		{[]string{"show", "laptop-alice"}, 0, []string{"Alice's laptop", "disk encrypted", "inventory read"}, ""},
		{[]string{"why", "laptop-alice"}, 1, []string{"tier trusted", "tier full  does not pass", "device_os_too_old", "wanted     15.5", "found      15.4", "profile encrypted  passes"}, ""},
		{[]string{"show", "laptop-x"}, 1, []string{"no inventory lists this device"}, ""},
	} {
		out := devices(c.args...)
		for _, want := range c.want {
			if !strings.Contains(out.stdout+out.stderr, want) {
				t.Errorf("%v does not say %q: %+v", c.args, want, out)
			}
		}
		if out.code != c.code || c.not != "" && strings.Contains(out.stdout, c.not) {
			t.Errorf("%v: %+v", c.args, out)
		}
	}

	// It stops being compliant: refused after the next reading, with the way to
	// cure it.
	laptop.Compliant = access.No
	inventory.Set(laptop)
	d.waitFor("device inventory read", 2)
	refused := v.open(base + "/orders?x=1")
	refused.says(t, 403, "This device is not compliant", "Since", "Inventory read", "jamf", "Check again")
	if !strings.Contains(refused.body, "https://it.example.com/comply") {
		t.Errorf("no way to cure it: %s", refused.body)
	}
	v.submit(refused, nil).says(t, 403, "Checked just now: this device still does not pass.", "This device is not compliant")

	// Cured, and checked again until the inventory is asked once more.
	laptop.Compliant = access.Yes
	inventory.Set(laptop)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p := v.submit(refused, nil)
	for p.status != 200 {
		if p.status != 403 && p.status != 429 || ctx.Err() != nil {
			t.Fatalf("%d %s", p.status, p.body)
		}
		pause(ctx, time.Second)
		p = v.submit(refused, nil)
	}
	p.says(t, 200, "this is the application")
	if p.url.Path != "/orders" {
		t.Errorf("it leads to %s", p.url)
	}

	// The inventory dies, and doorward is restarted.
	d.stop()
	inventory.Always(testidp.Throttles(http.StatusInternalServerError, ""))
	d = start(t, "doorward", "serve", "--config", config)
	d.waitFor("serving", 1)
	d.waitFor("the kept snapshot of a device inventory was found", 1)
	v.open(base+"/").says(t, 200, "this is the application")
	d.waitFor("device inventory cannot be read", 1)
	v.open(base+"/").says(t, 200, "this is the application")
	if out := devices("list"); !strings.Contains(out.stdout, "FAILING FOR") || !strings.Contains(out.stdout, "500") {
		t.Errorf("%+v", out)
	}
	metrics := v.once("GET", "http://"+adminAddr+"/metrics", nil, nil).body
	for _, name := range []string{`doorward_device_source_age_seconds{source="jamf"} `, `doorward_device_source_failing_seconds{source="jamf"} `, `doorward_device_source_failing{source="jamf"} 1`} {
		if !strings.Contains(metrics, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}

	// A policy that lets nothing count is in force at once.
	replace(t, config, strings.Replace(text, "on_unavailable: {use_last_known: 1h}", "on_unavailable: deny", 1))
	d.waitFor("configuration loaded", 1)
	v.open(base+"/").says(t, 403, "The device cannot be checked right now", "Since", "Check again")
}

// pause waits for a while that a person would wait, too.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
