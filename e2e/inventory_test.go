package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// The inventory of a vendor decides: a device that stops being compliant there
// is refused after the next reading. While the inventory cannot be read, a
// careful door refuses everybody and a patient one relies on what it knew.
func TestVendorInventory(t *testing.T) {
	inventory := testidp.NewInventory("jamf", nil)
	vendor := httptest.NewServer(inventory)
	t.Cleanup(vendor.Close)
	laptop := access.Device{
		ID: "laptop-alice", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes, DiskEncrypted: access.Yes, Jailbroken: access.No,
		OS: "macos", OSVersion: "15.4", Owner: "alice@example.com", Name: "Alice's laptop", SeenAt: time.Now(),
	}
	inventory.Set(laptop)

	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>this is the application</p>") })
	door := func(onUnavailable string) (*process, func() page) {
		t.Helper()
		addr := freeAddress(t)
		_, port, _ := net.SplitHostPort(addr)
		base := "http://app.localhost:" + port
		provider := startProvider(t, base+"/.doorward/callback", nil)
		dir := t.TempDir()
		writeFile(t, dir, "secret", "s3cret")
		writeFile(t, dir, "jamf", testidp.InventorySecret)
		d := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
log: {format: text}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
devices:
  sources:
    - {id: jamf, type: jamf, url: %q, client_id: %s, client_secret: {file: jamf}, compliant_group: Compliant, refresh: 10s}
  match: [claim.deviceid]
  on_unavailable: %s
  profiles: {healthy: {all: [known, managed, compliant, disk_encrypted, not_jailbroken]}}
routes:
  - {id: app, from: %s, to: [%s], require: {device: healthy}, allow: [{name: all, any_user: true}]}
`, addr, freeAddress(t), provider.Issuer(), vendor.URL, testidp.InventoryClient, onUnavailable, base, app)))
		d.waitFor("serving", 1)
		v := newVisitor(t)
		v.login(base+"/", "alice").says(t, 200, "this is the application")
		return d, func() page { return v.open(base + "/") }
	}
	careful, visitCareful := door("deny")
	patient, visitPatient := door("{use_last_known: 1h}")
	visitCareful().says(t, 200, "this is the application")

	// The vendor is down.
	inventory.Always(testidp.Throttles(http.StatusInternalServerError, ""))
	careful.waitFor("device inventory cannot be read", 1)
	patient.waitFor("device inventory cannot be read", 1)
	visitCareful().says(t, 403, "The device cannot be checked right now")
	visitPatient().says(t, 200, "this is the application")

	// It is back, and says something else.
	laptop.Compliant = access.No
	inventory.Set(laptop)
	inventory.Always(nil)
	careful.waitFor("device inventory can be read again", 1)
	patient.waitFor("device inventory can be read again", 1)
	for _, visit := range []func() page{visitCareful, visitPatient} {
		visit().says(t, 403, "This device is not compliant", "not in the group Compliant")
	}
}
