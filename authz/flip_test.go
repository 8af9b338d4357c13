package authz

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// flipExpression makes an expression of the random world true or false by a
// fact that no other condition looks at. It fails for the others.
func flipExpression(req *access.Request, source string, value bool) bool {
	if source != "user.email == 'a@example.com'" {
		return false
	}
	req.Identity.Email = map[bool]string{true: "a@example.com", false: "b@example.com"}[value]
	return true
}

// flip changes the fact that one step names, from what the step says alone: it
// shares no code with the search that found it. It fails where the random world
// gives no fact to change.
func flip(t *rapid.T, p *Policy, req *access.Request, c Step) bool {
	id, dev := &req.Identity, &req.Device
	key, name, _ := strings.Cut(c.Condition, ".")
	switch key {
	case LogIn, NewToken:
		req.Credential.Problem = ""
		name, machine := strings.CutSuffix(c.Example, " (a machine)")
		if id.Nobody() || id.Provider == "gone" {
			*id = access.Identity{Provider: name, Issuer: "https://issuer.example.com", Subject: "new"}
		}
		id.Kind = map[bool]access.Kind{true: access.Service}[machine]
		if !machine { // as strong as a login can be
			id.Login = access.Login{Time: req.Time, ACR: "phrh", AMR: []string{"hwk", "mfa"}}
		}
	case Facts:
		req.Fault = ""
	case "kind", "any_user":
		id.Kind = map[bool]access.Kind{true: access.Service}[c.Example == "a service"]
	case "groups", "users", "providers", "client_ids":
		what, who, _ := strings.Cut(c.Example, " ")
		provider, name, _ := strings.Cut(who, ":")
		switch what {
		case "group":
			id.Provider, id.Groups = provider, slices.Sorted(slices.Values(append(slices.Clone(id.Groups), name)))
		case "user":
			id.Provider, id.Subject = provider, name
		case "client":
			id.Provider, id.ClientID = provider, name
		case "provider":
			id.Provider = provider
		case "no":
			id.ClientID = ""
		case "another":
			id.Subject = "new"
		case "none":
			id.GroupsIncomplete = false
			named := map[string][]string{"corp g1": {"eng", "ops"}, "partners g2": {"eng"}}
			for _, group := range strings.Split(c.Want, " or ") {
				id.Groups = slices.DeleteFunc(slices.Clone(id.Groups), func(claim string) bool { return slices.Contains(named[id.Provider+" "+group], claim) })
				if group == "g3" && id.User() == "corp:u2" {
					id.Subject = "new"
				}
			}
		default:
			t.Fatalf("who is that? %+v", c)
		}
	case "claims":
		if id.Claims = maps.Clone(id.Claims); id.Claims == nil {
			id.Claims = map[string]any{}
		}
		delete(id.Claims, name)
		if c.Example != "" {
			id.Claims[name] = c.Example
		}
	case "service_accounts":
		id.ServiceAccount = c.Example
	case "spiffe":
		id.SPIFFE = c.Example
	case "scopes":
		if c.Become == Miss {
			id.Scopes = slices.DeleteFunc(slices.Clone(id.Scopes), func(s string) bool { return strings.Contains(c.Want, s) })
			break
		}
		id.Scopes = slices.Sorted(slices.Values(append(slices.Clone(id.Scopes), c.Example)))
	case "methods":
		req.Method = c.Example
	case "paths":
		req.Path = c.Example
	case "networks":
		req.Network.IP = netip.MustParseAddr(c.Example)
	case "time":
		at, err := time.Parse(time.RFC3339, c.Example)
		if err != nil {
			t.Fatal(err)
		}
		req.MoveTo(at)
	case "when", "unless":
		source, value, _ := strings.Cut(c.Want, " is ")
		return flipExpression(req, source, (value == "true") == (c.Become == Hit))
	case string(access.DeviceMissing), string(access.DeviceUnknown), string(access.DeviceSourceUnavailable), string(access.DeviceMismatch):
		if profiles, ok := strings.CutPrefix(c.Example, "one that passes "); ok {
			*dev = deviceLike(p, strings.Split(profiles, " and "), req.Time)
			break
		}
		dev.Known = map[bool]access.Tri{true: access.Yes, false: dev.Known}[key == string(access.DeviceUnknown)]
		dev.SourceFailingSince, dev.Problem = time.Time{}, ""
	case string(access.DeviceFactsTooOld):
		dev.SeenAt = req.Time
	case string(access.DeviceOSTooOld), string(access.DeviceFactMissing), string(access.DeviceNotManaged), string(access.DeviceNotCompliant), string(access.DeviceNotEncrypted),
		string(access.DeviceJailbroken), string(access.DeviceAtRisk), string(access.DeviceOfAnotherUser), string(access.DeviceCertMissing), string(access.DeviceClaimMissing):
		if system, version, ok := strings.Cut(c.Example, " "); ok {
			dev.OS, dev.OSVersion = system, version
			break
		}
		facts := map[string]*access.Tri{"known": &dev.Known, "managed": &dev.Managed, "compliant": &dev.Compliant, "disk_encrypted": &dev.DiskEncrypted,
			"owned": &dev.Owned, "certificate": &dev.ByCertificate, "claim": &dev.ByClaim}
		switch fact := facts[c.Want]; {
		case fact != nil:
			*fact = access.Yes
		case c.Want == "not_jailbroken":
			dev.Jailbroken = access.No
		case c.Want == "low_risk":
			dev.Risk = access.RiskNone
		default:
			t.Fatalf("no fact for %+v", c)
		}
	case string(access.DeviceSourceNotAccepted):
		dev.Source = c.Example
	case string(access.ACRInsufficient), string(access.PhishingResistantNeeded):
		id.Login.ACR, id.Login.Levels = "phr", nil
	case string(access.AMRInsufficient):
		id.Login.AMR = append(slices.Clone(id.Login.AMR), c.Example)
	case string(access.LoginTooOld), string(access.SessionTooOld):
		id.Login.Time = req.Time
	default:
		t.Fatalf("a step that nobody can take: %+v", c)
	}
	return true
}

// deviceLike is a device with what each of some profiles asks for.
func deviceLike(p *Policy, profiles []string, at time.Time) access.Device {
	dev, _ := p.Device(profiles[0], at)
	for _, name := range profiles[1:] {
		more, _ := p.Device(name, at)
		if dev.OS == "" {
			dev.OS, dev.OSVersion = more.OS, more.OSVersion
		}
		if dev.Risk == access.RiskUnknown {
			dev.Risk = more.Risk
		}
		for _, facts := range [][2]*access.Tri{{&dev.Managed, &more.Managed}, {&dev.Compliant, &more.Compliant}, {&dev.DiskEncrypted, &more.DiskEncrypted},
			{&dev.Jailbroken, &more.Jailbroken}, {&dev.Owned, &more.Owned}, {&dev.ByCertificate, &more.ByCertificate}, {&dev.ByClaim, &more.ByClaim}} {
			if *facts[0] == access.Unknown {
				*facts[0] = *facts[1]
			}
		}
	}
	return dev
}

// flipped takes some steps on a copy of a request.
func flipped(t *rapid.T, p *Policy, req *access.Request, steps []Step) (*access.Request, bool) {
	changed := *req
	for _, step := range steps {
		if !flip(t, p, &changed, step) {
			return nil, false
		}
	}
	return &changed, true
}

// What explain proposes is true: whoever changes exactly those facts is let in,
// and whoever leaves one of them out is not.
func TestTheProposedChangeFlipsTheVerdict(t *testing.T) {
	var taken, assumed, none, needed, unfinished int
	conditions := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		p, faults := Compile(drawInput(t))
		if len(faults) > 0 {
			t.Fatalf("the generator made a faulty policy: %q", faults)
		}
		for range 25 {
			req := drawRequest(t)
			d, tree := p.Explain(req)
			if d.Outcome == access.Allow || d.Reason == access.NoRoute || req.Time.IsZero() {
				continue
			}
			if tree.NoChange != "" {
				if none++; strings.Contains(tree.NoChange, "none was found") {
					unfinished++
				}
				continue
			}
			changed, ok := flipped(t, p, req, tree.Change)
			if !ok {
				assumed++
				continue
			}
			taken++
			if again := p.Decide(changed); again.Outcome != access.Allow {
				_, now := p.Explain(changed)
				var b strings.Builder
				now.WriteText(&b, false)
				t.Fatalf("%+v\nwas to be allowed after %+v\nand is %+v\n%s\n%+v", req, tree.Change, again, b.String(), changed)
			}
			for i, left := range tree.Change {
				conditions[left.Condition]++
				if req.Identity.Provider == "gone" {
					continue // some steps name a provider, which makes somebody known of them
				}
				fewer, _ := flipped(t, p, req, slices.Delete(slices.Clone(tree.Change), i, i+1))
				if p.Decide(fewer).Outcome == access.Allow {
					t.Fatalf("%+v\nis allowed without %+v of %+v", req, left, tree.Change)
				}
				needed++
			}
		}
	})
	t.Logf("%d changes taken, %d steps needed, %d with an assumption, %d without a change, %d of them not looked for to the end; %v", taken, needed, assumed, none, unfinished, conditions)
	if taken < 1000 || none > taken/4 {
		t.Errorf("%d changes were tried, %d requests had none", taken, none)
	}
}
