package authz

import (
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// reference decides straight from the configuration, slowly and without any of
// the compiled forms, so that both can only agree by meaning the same.
type reference struct{ in Input }

func (ref reference) decide(req *access.Request) (access.Outcome, access.Reason, string) {
	i := slices.IndexFunc(ref.in.Routes, func(r access.Route) bool { return r.ID == req.Route })
	switch {
	case req.Fault != "":
		return access.Deny, req.Fault, ""
	case i < 0:
		return access.Deny, access.NoRoute, ""
	}
	rt := ref.in.Routes[i]
	for _, public := range rt.Public {
		if ref.rule(access.Rule{Methods: public.Methods, Paths: public.Paths, Networks: public.Networks}, req) == access.Yes {
			return access.Allow, access.PublicRoute, "public/" + public.Name
		}
	}
	if req.Credential.Problem != "" {
		return access.Deny, req.Credential.Problem, ""
	}
	if rt.Preflight && req.Preflight && req.Identity.User() == "" {
		return access.Allow, access.PublicRoute, "preflight"
	}
	if req.Identity.User() == "" || !slices.Contains(ref.in.Providers, req.Identity.Provider) {
		return access.Challenge, access.LoginRequired, ""
	}
	for _, rule := range rt.Deny {
		if rule.Mode != access.Report && ref.rule(rule, req) != access.No {
			return access.Deny, access.DeniedByRule, "deny/" + rule.Name
		}
	}
	allowed, reason := "", access.NotAllowed
	for _, rule := range rt.Allow {
		if rule.Mode == access.Report {
			continue
		}
		if !ref.mayName(rule, &req.Identity) {
			continue
		}
		if ref.rule(rule, req) == access.Yes && allowed == "" {
			allowed = "allow/" + rule.Name
		}
		// Would it allow, had the provider not withheld groups?
		generous := rule
		generous.Groups = nil
		if req.Identity.GroupsIncomplete && len(rule.Groups) > 0 && ref.groups(rule.Groups, &req.Identity) == access.Unknown && ref.rule(generous, req) == access.Yes {
			reason = access.GroupsUnknown
		}
	}
	if allowed == "" {
		return access.Deny, reason, ""
	}
	if device, login := ref.requirements(rt, req); device != "" || login != "" {
		if device == "" {
			device = login
		}
		return access.Challenge, device, ""
	}
	return access.Allow, access.Allowed, allowed
}

func (ref reference) rule(r access.Rule, req *access.Request) access.Tri {
	id := &req.Identity
	var answers []access.Tri
	if len(r.Groups) > 0 {
		answers = append(answers, ref.groups(r.Groups, id))
	}
	if len(r.Users) > 0 {
		answers = append(answers, access.TriOf(slices.Contains(r.Users, id.User())))
	}
	if len(r.Providers) > 0 {
		answers = append(answers, access.TriOf(slices.Contains(r.Providers, id.Provider)))
	}
	answers = append(answers, referenceMachine(r, id)...)
	for name, accept := range r.Claims {
		answers = append(answers, referenceClaim(id.Claims[name], accept))
	}
	if len(r.Methods) > 0 {
		answers = append(answers, unlessUnknown(req.Method == "", slices.Contains(r.Methods, req.Method)))
	}
	if len(r.Paths) > 0 {
		answers = append(answers, referencePath(r.Paths, req.Path))
	}
	if len(r.Networks) > 0 {
		ip := req.Network.IP.WithZone("").Unmap()
		hit := slices.ContainsFunc(r.Networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(ip) })
		answers = append(answers, unlessUnknown(!ip.IsValid(), hit))
	}
	if !r.Time.IsZero() {
		answers = append(answers, unlessUnknown(req.Time.IsZero(), referenceWindow(r.Time, req.Time)))
	}
	if r.When != "" {
		answers = append(answers, ref.expression(r.When, req))
	}
	if r.Unless != "" {
		answer := ref.expression(r.Unless, req)
		if answer != access.Unknown {
			answer = access.TriOf(answer == access.No)
		}
		answers = append(answers, answer)
	}
	switch {
	case slices.Contains(answers, access.No):
		return access.No
	case slices.Contains(answers, access.Unknown):
		return access.Unknown
	default:
		return access.Yes
	}
}

func (ref reference) groups(names []string, id *access.Identity) access.Tri {
	unknown := false
	for _, name := range names {
		g := ref.in.Groups[name]
		if slices.Contains(g.Users, id.User()) {
			return access.Yes
		}
		if g.Provider != id.Provider {
			continue
		}
		for _, c := range g.ClaimGroups {
			if slices.Contains(id.Groups, c) {
				return access.Yes
			}
			unknown = unknown || id.GroupsIncomplete
		}
	}
	if unknown {
		return access.Unknown
	}
	return access.No
}

func unlessUnknown(unknown, hit bool) access.Tri {
	if unknown {
		return access.Unknown
	}
	return access.TriOf(hit)
}

// referenceClaim compares as text what has a text of its own.
func referenceClaim(value any, accept []string) access.Tri {
	switch v := value.(type) {
	case nil:
		return access.No
	case map[string]any:
		return access.Unknown
	case float64:
		return unlessUnknown(v > 1<<53, slices.Contains(accept, fmt.Sprint(v)))
	case []any:
		var nested, hit bool
		for _, member := range v {
			_, list := member.([]any)
			nested, hit = nested || list, hit || slices.Contains(accept, fmt.Sprint(member))
		}
		return unlessUnknown(nested && !hit, hit)
	}
	return access.TriOf(slices.Contains(accept, fmt.Sprint(value)))
}

// referencePath asks about a path as it is and as the most careless server
// would read it.
func referencePath(globs []string, path string) access.Tri {
	match := func(path string) bool {
		return slices.ContainsFunc(globs, func(g string) bool { return globRegexp(g).MatchString(path) })
	}
	careless := path
	for {
		decoded, err := url.PathUnescape(careless)
		if err != nil || decoded == careless {
			break
		}
		careless = decoded
	}
	careless = regexp.MustCompile(`;[^/]*`).ReplaceAllString(strings.ReplaceAll(careless, `\`, "/"), "")
	careless = regexp.MustCompile(`/+`).ReplaceAllString(careless, "/")
	return unlessUnknown(path == "" || match(path) != match(careless), match(path))
}

// referenceWindow asks a minute of the week whether it is one of the window's.
func referenceWindow(w access.TimeWindow, at time.Time) bool {
	zone := time.UTC
	if w.Zone != "" {
		zone, _ = time.LoadLocation(w.Zone)
	}
	from, to := 0, 24*60
	if w.Hours != "" {
		var h1, m1, h2, m2 int
		fmt.Sscanf(w.Hours, "%d:%d-%d:%d", &h1, &m1, &h2, &m2)
		if from, to = h1*60+m1, h2*60+m2; to <= from {
			to += 24 * 60
		}
	}
	days := map[string]string{"": "Sun Mon Tue Wed Thu Fri Sat", "mon-fri": "Mon Tue Wed Thu Fri", "sat,sun": "Sat Sun"}[w.Days]
	local := at.In(zone)
	minute := local.Hour()*60 + local.Minute()
	today := strings.Contains(days, local.Format("Mon")) && minute >= from && minute < to
	yesterday := strings.Contains(days, local.AddDate(0, 0, -1).Format("Mon")) && minute+24*60 < to
	return today || yesterday
}

// expressions are what random rules may say, with the same in Go.
var expressions = map[string]func(reference, *access.Request) access.Tri{
	"user.email == 'a@example.com'": func(_ reference, r *access.Request) access.Tri {
		return access.TriOf(r.Identity.Email == "a@example.com")
	},
	"claims.level == 2": func(_ reference, r *access.Request) access.Tri {
		level, ok := r.Identity.Claims["level"]
		return unlessUnknown(!ok, level == 2.0)
	},
	"request.path.startsWith('/a')": func(_ reference, r *access.Request) access.Tri { return access.TriOf(strings.HasPrefix(r.Path, "/a")) },
	"'eng' in user.groups": func(_ reference, r *access.Request) access.Tri {
		return unlessUnknown(r.Identity.GroupsIncomplete, slices.Contains(r.Identity.Groups, "eng"))
	},
	"device.os == 'macos'": func(ref reference, r *access.Request) access.Tri {
		doubt := ref.profile("", r, ref.in.Devices.MaxAge.Or(24*time.Hour))
		return unlessUnknown(doubt == access.DeviceFactsTooOld || doubt == access.DeviceSourceUnavailable, r.Device.OS == "macos")
	},
	"request.query.x[0] == '1'": func(_ reference, r *access.Request) access.Tri {
		query, err := url.ParseQuery(r.Query)
		return unlessUnknown(err != nil || !query.Has("x") || strings.Contains(r.Query, access.HiddenValue), query.Get("x") == "1")
	},
}

func (ref reference) expression(source string, req *access.Request) access.Tri {
	return expressions[source](ref, req)
}

// requirements returns the first device reason and the first login reason, where
// there is only one candidate for "first"; otherwise any of the kind.
func (ref reference) requirements(rt access.Route, req *access.Request) (device, login access.Reason) {
	var list []access.Require
	for _, s := range rt.Rules {
		if ref.rule(access.Rule{Methods: s.Methods, Paths: s.Paths}, req) != access.No {
			list = append(list, s.Require)
		}
	}
	general := ref.in.Defaults.Require
	if rt.Exceptions.Device != "" {
		general.Device = ""
	}
	if rt.Exceptions.Login != "" {
		general.Login = access.LoginRequire{}
	}
	list = append(list, rt.Require, general)
	var acr, phishing, amr, age bool
	for _, r := range list {
		if r.Device != "" && device == "" {
			device = ref.profile(r.Device, req, ref.in.Devices.MaxAge.Or(24*time.Hour))
		}
		have := req.Identity.Login
		strong := have.ACR == "phrh" || have.ACR == "phr"
		if len(have.Levels) > 0 { // then the class itself says nothing about levels
			strong = slices.Contains(have.Levels, "phr")
		}
		acr = acr || len(r.Login.ACR) > 0 && !strong
		phishing = phishing || r.Login.PhishingResistant && !strong
		used := slices.ContainsFunc(have.AMR, func(m string) bool { return slices.Contains(r.Login.AMR, m) })
		amr = amr || len(r.Login.AMR) > 0 && !used
		old := have.Time.IsZero() || have.Time.Before(req.Time.Add(-r.Login.MaxAge.Std())) || have.Time.After(req.Time.Add(time.Minute))
		age = age || r.Login.MaxAge > 0 && old
	}
	switch {
	case acr:
		login = access.ACRInsufficient
	case phishing:
		login = access.PhishingResistantNeeded
	case amr:
		login = access.AMRInsufficient
	case age:
		login = access.LoginTooOld
	case ref.sessionOver(req):
		login = access.SessionTooOld
	}
	return device, login
}

// source is a profile, or a tier as the profile it stands for.
func (ref reference) source(name string) (access.Profile, bool) {
	for i, tier := range ref.in.Devices.Tiers {
		if tier.Name == name {
			if i > 0 {
				tier.All = append(slices.Clone(tier.All), ref.in.Devices.Tiers[i-1].Name)
			}
			return tier.Profile, true
		}
	}
	p, ok := ref.in.Devices.Profiles[name]
	return p, ok
}

// tier is the last tier that the device passes, -1 for none.
func (ref reference) tier(req *access.Request) int {
	at := -1
	for i, tier := range ref.in.Devices.Tiers {
		if ref.profile(tier.Name, req, ref.in.Devices.MaxAge.Or(24*time.Hour)) == "" {
			at = i
		}
	}
	return at
}

func (ref reference) sessionOver(req *access.Request) bool {
	if len(ref.in.Devices.Tiers) == 0 || req.Identity.Kind == access.Service {
		return false
	}
	limit := ref.in.Devices.Tiers[max(0, ref.tier(req))].Session.Std()
	at := req.Identity.Login.Time
	return limit > 0 && (at.IsZero() || at.Add(limit).Before(req.Time) || at.After(req.Time.Add(time.Minute)))
}

// profile returns the first reason why the device does not pass, by recursion.
func (ref reference) profile(name string, req *access.Request, maxAge time.Duration) access.Reason {
	source, _ := ref.source(name)
	dev := &req.Device
	failing := dev.SourceFailingSince
	if age := ref.strictestAge(name); age < maxAge {
		maxAge = age
	}
	switch {
	case dev.Problem != "":
		return dev.Problem
	case dev.ID == "":
		return access.DeviceMissing
	case dev.Known == access.No:
		return access.DeviceUnknown
	case dev.Known == access.Unknown && dev.Source == "":
		if !failing.IsZero() {
			return access.DeviceSourceUnavailable
		}
		return access.DeviceUnknown
	case !failing.IsZero() && ref.in.Devices.OnUnavailable.UseLastKnown == 0,
		!failing.IsZero() && failing.Add(ref.in.Devices.OnUnavailable.UseLastKnown.Std()).Before(req.Time):
		return access.DeviceSourceUnavailable
	case dev.SeenAt.IsZero(), dev.SeenAt.Add(maxAge).Before(req.Time), dev.SeenAt.After(req.Time.Add(5 * time.Minute)):
		return access.DeviceFactsTooOld
	}
	facts := map[string]struct {
		have   access.Tri
		reason access.Reason
	}{
		"known": {dev.Known, access.DeviceUnknown}, "managed": {dev.Managed, access.DeviceNotManaged}, "compliant": {dev.Compliant, access.DeviceNotCompliant},
		"disk_encrypted": {dev.DiskEncrypted, access.DeviceNotEncrypted},
		"not_jailbroken": {map[access.Tri]access.Tri{access.Yes: access.No, access.No: access.Yes}[dev.Jailbroken], access.DeviceJailbroken},
		"low_risk": {map[access.Risk]access.Tri{access.RiskNone: access.Yes, access.RiskLow: access.Yes, access.RiskMedium: access.No, access.RiskHigh: access.No}[dev.Risk],
			access.DeviceAtRisk},
		"owned": {dev.Owned, access.DeviceOfAnotherUser}, "certificate": {dev.ByCertificate, access.DeviceCertMissing}, "claim": {dev.ByClaim, access.DeviceClaimMissing},
	}
	since := dev.NonCompliantSince
	tolerated := !since.IsZero() && dev.Risk != access.RiskHigh && !since.Add(source.Grace.Std()).Before(req.Time) && !since.After(req.Time.Add(5*time.Minute)) &&
		(dev.GraceUntil.IsZero() || req.Time.Before(dev.GraceUntil)) && req.Time.Before(since.Add(source.Grace.Std()))
	for _, item := range source.All {
		fact, isCheck := facts[item]
		switch {
		case !isCheck:
			if reason := ref.profile(item, req, maxAge); reason != "" {
				return reason
			}
		case fact.have == access.Unknown:
			return access.DeviceFactMissing
		case fact.have == access.No && item == "compliant" && source.Grace > 0 && tolerated:
		case fact.have == access.No:
			return fact.reason
		}
	}
	refused := access.Reason("")
	if len(source.Sources) > 0 && !slices.Contains(source.Sources, dev.Source) {
		refused = access.DeviceSourceNotAccepted
	}
	if len(source.MinOS) == 0 {
		return refused
	}
	oldest, listed := source.MinOS[dev.OS]
	var have, want int
	switch {
	case dev.OS == "":
		return access.DeviceFactMissing
	case !listed:
		return access.DeviceOSTooOld
	case dev.OSVersion == "":
		return access.DeviceFactMissing
	}
	fmt.Sscan(dev.OSVersion, &have)
	fmt.Sscan(oldest, &want)
	if have < want {
		return access.DeviceOSTooOld
	}
	return refused
}

// strictestAge is the least maximum age among a profile and all it includes.
func (ref reference) strictestAge(name string) time.Duration {
	source, _ := ref.source(name)
	age := source.MaxAge.Or(ref.in.Devices.MaxAge.Or(24 * time.Hour))
	for _, item := range source.All {
		if _, ok := ref.source(item); ok && !slices.Contains(checkNames(), item) {
			age = min(age, ref.strictestAge(item))
		}
	}
	return age
}

// sameKind treats reasons as equal that only differ in which of several device
// failures is named first.
func sameKind(a, b access.Reason) bool { return a == b || a.AboutDevice() && b.AboutDevice() }

// A hundred rounds of ten policies with ten requests each.
func TestDecideAgreesWithTheReference(t *testing.T) {
	cases := map[access.Reason]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			in := drawInput(t)
			p, faults := Compile(in)
			if len(faults) > 0 {
				t.Fatalf("the generator made a faulty policy: %q", faults)
			}
			for i := range 10 {
				d := checkAgainstReference(t, in, p, drawRequest(t), i == 0)
				cases[d.Reason]++
			}
		}
	})
	t.Log(cases)
	for _, reason := range []access.Reason{access.Allowed, access.PublicRoute, access.LoginRequired, access.DeniedByRule, access.NotAllowed, access.GroupsUnknown, access.DeviceMissing} {
		if cases[reason] == 0 {
			t.Errorf("the random cases never reached %s: %v", reason, cases)
		}
	}
}

func checkAgainstReference(t *rapid.T, in Input, p *Policy, req *access.Request, explain bool) access.Decision {
	ref := reference{in}
	outcome, reason, rule := ref.decide(req)
	d := p.Decide(req)
	if d.Outcome != outcome || !sameKind(d.Reason, reason) || d.Rule != rule {
		t.Fatalf("got %s %s %q, the reference says %s %s %q\n%+v\n%+v", d.Outcome, d.Reason, d.Rule, outcome, reason, rule, in.Routes, req)
	}
	wantTier := ""
	if at := ref.tier(req); at >= 0 && d.Policy == in.Version && req.Fault == "" && d.Reason != access.NoRoute {
		wantTier = in.Devices.Tiers[at].Name
	}
	if d.Tier != wantTier {
		t.Fatalf("tier %q, the reference says %q: %+v", d.Tier, wantTier, req.Device)
	}
	if explain { // it looks for changes, which takes its time
		if explained, tree := p.Explain(req); !reflect.DeepEqual(explained, d) {
			t.Fatalf("Explain says %+v, Decide %+v", explained, d)
		} else if (d.Outcome == access.Allow) != (len(tree.Change) == 0 && tree.NoChange == "") {
			t.Fatalf("%s with changes %q", d.Outcome, tree.Change)
		}
	}
	if d.Outcome == access.Challenge && (len(d.Needs) == 0 || d.Needs[0].Reason != d.Reason) {
		t.Fatalf("a challenge without what is needed: %+v", d)
	}
	checkShadow(t, ref, req, d)
	return d
}

// checkShadow enforces each reporting rule alone and compares.
func checkShadow(t *rapid.T, ref reference, req *access.Request, d access.Decision) {
	var want []access.Shadow
	for i, rt := range ref.in.Routes {
		if rt.ID != req.Route {
			continue
		}
		for _, kind := range []string{"deny", "allow"} {
			rules := map[string][]access.Rule{"deny": rt.Deny, "allow": rt.Allow}[kind]
			for j := range rules {
				if rules[j].Mode != access.Report {
					continue
				}
				trial := ref
				trial.in.Routes = slices.Clone(ref.in.Routes)
				enforced := slices.Clone(rules)
				enforced[j].Mode = access.Enforce
				if kind == "deny" {
					trial.in.Routes[i].Deny = enforced
				} else {
					trial.in.Routes[i].Allow = enforced
				}
				if outcome, reason, _ := trial.decide(req); outcome != d.Outcome {
					want = append(want, access.Shadow{Rule: kind + "/" + rules[j].Name, Outcome: outcome, Reason: reason})
				}
			}
		}
	}
	same := slices.EqualFunc(want, d.Shadow, func(a, b access.Shadow) bool {
		return a.Rule == b.Rule && a.Outcome == b.Outcome && sameKind(a.Reason, b.Reason)
	})
	if !same {
		t.Fatalf("shadow %+v, the reference says %+v", d.Shadow, want)
	}
}
