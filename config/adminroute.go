package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// checkAdminRoute reports a route to the admin pages that would be weaker than
// what it opens: it shows every session and ends any.
func checkAdminRoute(f *File, at access.Faults) {
	id := f.Server.Admin.Route
	if id == "" {
		return
	}
	i := slices.IndexFunc(f.Routes, func(r access.Route) bool { return r.ID == id })
	if i < 0 {
		ids := make([]string, len(f.Routes))
		for j := range f.Routes {
			ids[j] = f.Routes[j].ID
		}
		_, cure := didYouMean(id, ids)
		at.At("server.admin.route").Add(cure, "unknown route %q", id)
		return
	}
	route, here := &f.Routes[i], at.At("routes[%d]", i)
	checkAdminAddress(f, i, here)
	if login := &route.Require.Login; !stepsUp(login) {
		here.At("require.login").Add("write require: {login: {acr: [mfa], max_age: 1h}}, or phishing_resistant: true",
			"the route to the admin pages demands no login that is stronger than any (acr, amr or phishing_resistant)")
	}
	for j := range route.Public {
		here.At("public[%d]", j).Add("remove the rule", "nobody reaches the admin pages without a login")
	}
	named := map[string]bool{}
	for j := range route.Allow {
		rule := &route.Allow[j]
		if len(rule.Groups) == 0 && rule.Mode != access.Report {
			here.At("allow[%d].groups", j).Add("name the groups of your administrators", "the route to the admin pages lets in whoever else the rule matches")
		}
		for _, name := range rule.Groups {
			named[name] = true
		}
	}
	for j, name := range f.Server.Admin.ViewGroups {
		if !named[name] {
			at.At("server.admin.view_groups[%d]", j).Add("name it in an allow rule of the route "+strconv.Quote(id), "the route lets in no group %q", name)
		}
	}
}

// checkAdminAddress reports a route that shares its origin, which its assertions
// are for, with another one, or that leads elsewhere.
func checkAdminAddress(f *File, i int, here access.Faults) {
	route := &f.Routes[i]
	from, err := url.Parse(route.From)
	if err != nil {
		return // the owner says so
	}
	if strings.HasPrefix(from.Host, "*") || strings.Trim(from.Path, "/") != "" || from.Scheme != "http" && from.Scheme != "https" {
		here.At("from").Add("write https://admin.corp.example.com", "the admin pages need one host of their own, without a path")
	}
	for j := range f.Routes {
		if other, err := url.Parse(f.Routes[j].From); err == nil && j != i && other.Scheme == from.Scheme && host(other) == host(from) {
			here.At("from").Add("use a host of its own", "the admin pages share their host with route %q", f.Routes[j].ID)
			break
		}
	}
	want := f.Server.Admin.URL()
	if len(route.To) == 0 { // a front end forwards; whatever has no assertion for this route finds nothing
		return
	}
	for j, to := range route.To {
		if strings.TrimSuffix(to, "/") != want {
			here.At("to[%d]", j).Add("write to: ["+want+"]", "the route to the admin pages leads to %q, which is not this admin listener", to)
		}
	}
}

// stepsUp reports whether a demand on the login is more than that there is one.
// How old it may be says nothing of how strong it was.
func stepsUp(login *access.LoginRequire) bool {
	return login.PhishingResistant || len(login.AMR) > 0 && !slices.Contains(login.AMR, "pwd") || len(login.ACR) > 0 && !slices.Contains(login.ACR, "aal1")
}
