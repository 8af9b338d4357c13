package authz

import (
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// Where the outcome is said not to depend on what the record lacks, nothing that
// may have stood there changes it.
func TestWhatDoesNotDependDoesNot(t *testing.T) {
	known, unknown := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		p, faults := Compile(in)
		if len(faults) > 0 {
			t.Fatalf("%q", faults)
		}
		for range 30 {
			req := drawRequest(t)
			var gaps Gaps
			fill := map[string]func(into, from *access.Request){
				"path":   func(into, from *access.Request) { into.Path = "/" + strings.TrimPrefix(from.Path, "/") },
				"claims": func(into, from *access.Request) { into.Identity.Claims = maps.Clone(from.Identity.Claims) },
				"everyone": func(into, from *access.Request) {
					into.Identity, into.Device, into.Credential = from.Identity, from.Device, from.Credential
				},
				"device": func(into, from *access.Request) { into.Device.DiskEncrypted = from.Device.DiskEncrypted },
			}
			which := rapid.SampledFrom([]string{"path", "claims", "everyone", "device"}).Draw(t, "gap")
			switch which {
			case "path":
				gaps.Path = true
				req.Path = "/" + strings.TrimPrefix(req.Path, "/") // one that something was taken out of
			case "claims":
				gaps.Claims = true
			case "everyone":
				gaps.Everyone = true
				req.Identity, req.Device, req.Credential = access.Identity{}, access.Device{}, access.Credential{}
			case "device":
				gaps.Device = []string{"disk_encrypted"}
				req.Device.DiskEncrypted = access.Unknown
			}
			if req.Fault != "" {
				continue
			}
			if p.Depends(req, gaps) {
				unknown++
				continue
			}
			known++
			want := p.Decide(req)
			for range 5 {
				other := *req
				fill[which](&other, drawRequest(t))
				got := p.Decide(&other)
				refused := func(d access.Decision) bool { return d.Outcome != access.Allow }
				if got.Outcome != want.Outcome && !(which == "everyone" && refused(got) && refused(want)) {
					t.Fatalf("%s: %s with %+v, %s with %+v\n%+v", which, want.Outcome, req, got.Outcome, other, in.Routes)
				}
			}
		}
	})
	if known == 0 || unknown == 0 {
		t.Errorf("%d known, %d unknown", known, unknown)
	}
}
