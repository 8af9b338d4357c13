package config

import (
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
)

// crossCheck reports what no owner can see alone: sections that contradict each
// other.
func crossCheck(f *File, at access.Faults) {
	checkProviders(f, at)
	checkRoutes(f, at)
	checkLoginHost(f, at)
	checkDeviceClaims(f, at)
	checkDeviceCertificates(f, at)
	checkSignals(f, at)
	checkTunnels(f, at)
	checkCertificates(f, at)
	checkAdminRoute(f, at)
}

// checkTunnels reports tunnels that nobody can open: programs bring an access
// token or a certificate, and no cookie.
func checkTunnels(f *File, at access.Faults) {
	if slices.ContainsFunc(f.Providers, func(p authn.Provider) bool { return len(p.Audiences) > 0 || p.OfCertificates() }) {
		return
	}
	for i := range f.Routes {
		if strings.HasPrefix(f.Routes[i].From, "tcp:") {
			at.At("routes[%d].from", i).Add("add the audiences of access tokens to a provider",
				"nobody can open a tunnel: no provider accepts access tokens (audiences)")
			return
		}
	}
}

// checkDeviceCertificates reports a revocation of certificates that nobody
// accepts in the first place.
func checkDeviceCertificates(f *File, at access.Faults) {
	if f.Server.TLS.ClientCA == "" && !reflect.DeepEqual(f.Devices.Certificates.Revocation, devicecheck.Revocation{}) {
		at.At("devices.certificates.revocation").Add("add server.tls.client_ca with the authorities of your devices", "no device is ever believed its certificate")
	}
}

// checkSignals reports transmitters that nobody can tell apart, that speak for
// nobody, or whose events have nowhere to arrive.
func checkSignals(f *File, at access.Faults) {
	known := providerIDs(f.Providers)
	for i, t := range f.Signals {
		here := at.At("signals[%d]", i)
		for j, earlier := range f.Signals[:i] {
			if t.ID != "" && t.ID == earlier.ID {
				here.At("id").Add("give every transmitter an id of its own", "%q is already the id of signals[%d]", t.ID, j)
			}
		}
		for j, id := range t.Providers {
			if !slices.Contains(known, id) {
				_, cure := didYouMean(id, known)
				here.At("providers[%d]", j).Add(cure, "unknown provider %q", id)
			}
		}
		if len(t.Providers) == 0 && len(known) > 1 {
			here.At("providers").Add("list the providers whose people it may report on, such as ["+known[0]+"]",
				"there are %d providers, and it could end the sessions of anybody", len(known))
		}
		if t.Delivery != "poll" && t.Endpoint == "" && f.Server.AuthURL == "" {
			here.At("endpoint").Add("add endpoint: https://APP/.doorward/signals with one of your hosts, or server.auth_url",
				"nobody tells the transmitter where to push events to")
		}
	}
}

// checkDeviceClaims reports device claims and owners that any provider could
// make, and a profile that asks for an owner nobody is compared with.
func checkDeviceClaims(f *File, at access.Faults) {
	known := providerIDs(f.Providers)
	here := at.At("devices.claims_from")
	for i, id := range f.Devices.ClaimsFrom {
		if !slices.Contains(known, id) {
			_, cure := didYouMean(id, known)
			here.At("[%d]", i).Add(cure, "unknown provider %q", id)
		}
	}
	names := func(proof string) bool { return strings.HasPrefix(proof, "claim.") }
	if len(known) > 1 && len(f.Devices.ClaimsFrom) == 0 && slices.ContainsFunc(f.Devices.Match, names) {
		here.Add("list the providers whose claims may name a device, such as ["+known[0]+"]",
			"there are %d providers, and each of them could name any device", len(known))
	} else if len(known) > 1 && len(f.Devices.ClaimsFrom) == 0 && f.Devices.Owner != "" {
		here.Add("list the providers whose people own devices, such as ["+known[0]+"]",
			"there are %d providers, and each of them could name anybody as the owner", len(known))
	}
	if f.Devices.Owner != "" {
		return
	}
	owned := func(checks []string, at access.Faults) {
		if i := slices.Index(checks, "owned"); i >= 0 {
			at.At("all[%d]", i).Add("add devices.owner: email", "nobody passes: it is not said what the owner of a device is compared with")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Devices.Profiles)) {
		owned(f.Devices.Profiles[name].All, at.At("devices.profiles.%s", name))
	}
	for i := range f.Devices.Tiers {
		owned(f.Devices.Tiers[i].All, at.At("devices.tiers[%d]", i))
	}
}

func providerIDs(providers []authn.Provider) []string {
	ids := make([]string, len(providers))
	for i := range providers {
		ids[i] = providers[i].ID
	}
	return ids
}

// checkProviders reports ids and registrations that occur twice. A callback has
// to belong to one provider (RFC 9207).
func checkProviders(f *File, at access.Faults) {
	for i, p := range f.Providers {
		here := at.At("providers[%d]", i)
		for j, earlier := range f.Providers[:i] {
			if p.ID != "" && p.ID == earlier.ID {
				here.At("id").Add("give every provider an id of its own", "%q is already the id of providers[%d]", p.ID, j)
				break
			}
			if p.Issuer != "" && p.ClientID != "" && p.Issuer == earlier.Issuer && p.ClientID == earlier.ClientID {
				here.Add("remove one of them", "the client %q of %s is already providers[%d], %q", p.ClientID, p.Issuer, j, earlier.ID)
				break
			}
		}
	}
	checkMachines(f, at)
	if len(f.Providers) == 0 && slices.ContainsFunc(f.Routes, func(r access.Route) bool { return len(r.Allow) > 0 }) {
		at.At("providers").Add("add the identity provider that visitors log in with", "routes ask for a login, but there is no provider to log in with")
	}
}

// checkMachines reports certificates that no listener asks for, and a second
// provider to ask about opaque tokens: they do not say whose they are, and nobody
// is shown a token of somebody else's.
func checkMachines(f *File, at access.Faults) {
	first := -1
	for i, p := range f.Providers {
		if p.Issuer == "x509" && f.Server.TLS.ClientCA == "" {
			at.At("providers[%d].issuer", i).Add("add server.tls.client_ca with the same authorities", "no workload is ever asked for its certificate")
		}
		switch {
		case p.Introspection.Cache == 0:
		case first < 0:
			first = i
		default:
			at.At("providers[%d].introspection", i).Add("keep it for one provider", "providers[%d] has introspection already, and an opaque token does not say whose it is", first)
		}
	}
}

// checkRoutes reports addresses at which no request can ever arrive: the
// listener decides between http and https, and only a listed proxy is believed
// when it says that it received TLS.
func checkRoutes(f *File, at access.Faults) {
	if len(f.Routes) == 0 {
		at.At("routes").Add("add a route; docs/config.md shows one", "there is no route, so that every request would be refused")
	}
	for i := range f.Routes {
		if r := &f.Routes[i]; len(r.To) == 0 && !r.Answers() && !f.Server.Asked() && !strings.HasPrefix(r.From, "tcp:") {
			at.At("routes[%d].to", i).Add("list at least one upstream address, or let the route answer by itself with redirect or respond", "the route leads nowhere")
		}
	}
	if len(f.Server.TrustedProxies) > 0 {
		return
	}
	for i := range f.Routes {
		from, err := url.Parse(f.Routes[i].From)
		if err != nil {
			continue // the owner says so
		}
		here := at.At("routes[%d].from", i)
		switch tls := f.Server.TLS.Enabled(); {
		case from.Scheme == "https" && !tls:
			here.Add("add server.tls, or list the proxy that ends TLS in server.trusted_proxies",
				"no visitor arrives by https: the listener speaks plaintext and trusts no proxy")
		case from.Scheme == "http" && tls:
			here.Add("write https://"+from.Host, "no visitor arrives by http: the listener speaks TLS only")
		}
	}
}

// checkLoginHost reports a login host that is also an application: both would
// use the same cookie.
func checkLoginHost(f *File, at access.Faults) {
	login, err := url.Parse(f.Server.AuthURL)
	if err != nil || login.Host == "" {
		return
	}
	here := at.At("server.auth_url")
	for _, route := range f.Routes {
		from, err := url.Parse(route.From)
		if err != nil {
			continue
		}
		if from.Scheme == login.Scheme && host(from) == host(login) {
			here.Add("use a host of its own, or remove auth_url: an application's host does its own logins then",
				"the login host is also the address of route %q", route.ID)
			return
		}
		if from.Scheme == "https" && login.Scheme == "http" {
			here.Add("write https://"+login.Host, "logins would travel in plaintext, while route %q uses TLS", route.ID)
			return
		}
	}
}

// host returns the host of a URL without the default port, in lower case.
func host(u *url.URL) string {
	name := strings.ToLower(u.Host)
	return strings.TrimSuffix(name, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
}
