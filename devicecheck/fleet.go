package devicecheck

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const fleetPerPage = 100

// fleetServer is the host list of a Fleet server (osquery).
type fleetServer struct {
	*remote
	key string
}

func newFleet(s Source, o outside) (*fleetServer, error) {
	r, err := newRemote(s.URL, o)
	if err != nil {
		return nil, err
	}
	f := &fleetServer{remote: r, key: s.Key}
	f.authorize = func(_ context.Context, _ *pull, header http.Header, _ bool) (bool, error) {
		header.Set("Authorization", "Bearer "+s.Token.Reveal())
		return false, nil
	}
	return f, nil
}

// fetch implements fetcher.
func (f *fleetServer) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := f.begin()
	if err != nil {
		return nil, err
	}
	address := func(page int) *url.URL {
		u := f.home.JoinPath("api/v1/fleet/hosts")
		u.RawQuery = url.Values{
			"page": {strconv.Itoa(page)}, "per_page": {strconv.Itoa(fleetPerPage)},
			"order_key": {"id"}, "order_direction": {"asc"}, "populate_policies": {"true"},
		}.Encode()
		return u
	}
	name := func(host map[string]any) string { // the server's own number, which every host has
		number, _ := scalar(host["id"])
		if number == "" {
			number, _ = host[f.key].(string)
		}
		return number
	}
	if _, _, err := p.byNumber(ctx, address, jsonPath{"hosts"}, name, p.adding(f.device)); err != nil {
		return nil, err
	}
	return p.done(have)
}

func (f *fleetServer) device(p *pull, host map[string]any) (access.Device, error) {
	id, ok := host[f.key].(string)
	if !ok {
		return access.Device{}, fmt.Errorf("a host has no text %q", f.key)
	}
	platform := plain(host["platform"])
	d := access.Device{
		ID: id, Name: plain(host["hostname"]), OS: fleetOS(platform),
		DiskEncrypted: truth(p.odd, "disk_encryption_enabled", host["disk_encryption_enabled"]),
		Managed:       meaning(p.odd, "mdm.enrollment_status", jsonPath{"mdm", "enrollment_status"}.in(host), fleetManaged),
		SeenAt:        fleetSeen(host),
	}
	d.OSVersion = versionIn(d.OS, plain(host["os_version"]))
	fleetCompliance(p, &d, host)
	return d, nil
}

// fleetSeen returns the age of the facts: a host that calls in without telling
// its details is as old as those.
func fleetSeen(host map[string]any) time.Time {
	seen := moment(host["seen_time"])
	if detail, there := host["detail_updated_at"]; there && moment(detail).Before(seen) {
		return moment(detail)
	}
	return seen
}

// fleetCompliance: a host is compliant if it passes every policy, and there is
// at least one. A policy that has not run yet is unknown.
func fleetCompliance(p *pull, d *access.Device, host map[string]any) {
	policies, _ := host["policies"].([]any)
	verdict := access.TriOf(true)
	if len(policies) == 0 {
		verdict = access.Unknown
	}
	for _, policy := range policies {
		policy, _ := policy.(map[string]any)
		response, _ := policy["response"].(string)
		name := plain(policy["name"])
		switch response {
		case "pass":
		case "fail":
			verdict = access.No
			if resolution := plain(policy["resolution"]); resolution != "" {
				name += ": " + resolution
			}
			note(d, name)
		default:
			if policy["response"] != "" { // which it is until it has run
				p.odd.note("policies.response", policy["response"])
			}
			if verdict == access.Yes {
				verdict = access.Unknown
			}
			note(d, name+": not checked yet")
		}
	}
	// Where the server's own count of failures says otherwise, nothing is sure.
	if issues, there := host["issues"]; there && verdict == access.Yes {
		if failing, _ := scalar(jsonPath{"failing_policies_count"}.in(issues)); failing != "0" {
			verdict = access.Unknown
			note(d, "The list of policies and the number of failing ones differ")
		}
	}
	d.Compliant = verdict
}

// fleetManaged are the words of mdm.enrollment_status.
var fleetManaged = map[string]access.Tri{
	"On (automatic)": access.Yes, "On (manual)": access.Yes, "Off": access.No, "Pending": access.Unknown,
}

// fleetOS returns the common name for a platform; distributions of Linux have
// one each.
func fleetOS(platform string) string {
	switch platform {
	case "ubuntu", "debian", "rhel", "centos", "fedora", "arch", "amzn", "sles", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "pop", "linuxmint", "manjaro", "kali", "nixos":
		return "linux"
	case "chrome":
		return "chromeos"
	}
	return normalOS(platform)
}
