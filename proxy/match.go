package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Table finds the one route of a request. It is built once and never changes.
type Table struct {
	http, https, tcp hosts
	apps             []app // what the portal may list, by title
}

// hosts maps exact host names, and the part of a wildcard behind its star
// (".apps.example.com"), to the routes there.
type hosts struct {
	exact, wildcard map[string]*site
}

// site holds the routes of one host by their path prefix. The prefix of a route
// for the whole host is empty; others begin with a slash and end without.
type site struct {
	byPrefix map[string]*Entry
	depth    int     // the most slashes in a prefix
	hsts     *string // what its routes say of Strict-Transport-Security; nil: nothing
}

// Entry is a route as the table knows it.
type Entry struct {
	// Route is the configuration it was made from.
	Route *access.Route

	ambiguous ambiguity
	targets   []url.URL
	h2c       bool
	settings  settings // of the upstream
	headerSet
	timed  bool // a rule has a weekly window
	limits routeLimits
	shape  shape
	// tunnel says where a route for tunnels leads. Nil: the route is for HTTP.
	tunnel *destination
}

// headerSet is the headers that the upstream of a route gets. Routes that say the
// same share one.
type headerSet struct {
	headers []headerRule
	// names holds the skeletons of the names in headers.
	names map[string]bool
}

// NewTable compiles routes. Two routes for the same host and path are a fault:
// order decides nothing. It does no I/O.
func NewTable(routes []access.Route) (*Table, []access.Fault) {
	t := &Table{http: newHosts(), https: newHosts(), tcp: newHosts()}
	faults := access.NewFaults("routes")
	ids, sets := map[string]bool{}, map[string]headerSet{}
	for i := range routes {
		route := &routes[i]
		f := faults.At("[%d]", i)
		if route.ID == "" {
			f.At("id").Add("give the route a name", "the id is missing")
		} else if ids[route.ID] {
			f.At("id").Add("choose another id", "%q names two routes", route.ID)
		}
		ids[route.ID] = true
		t.add(newEntry(route, sets, f), f.At("from"))
		t.keepHSTS(route, f.At("hsts"))
		t.list(route, f.At("portal"))
	}
	t.checkRedirects(routes, faults)
	slices.SortFunc(t.apps, byTitle)
	return t, faults.List()
}

func newHosts() hosts { return hosts{exact: map[string]*site{}, wildcard: map[string]*site{}} }

func (t *Table) scheme(scheme string) *hosts {
	switch scheme {
	case "https", "wss":
		return &t.https
	case "http", "ws":
		return &t.http
	case "tcp":
		return &t.tcp
	}
	return nil
}

// add puts an entry at its place, or reports why it has none.
func (t *Table) add(entry *Entry, f access.Faults) {
	from := entry.Route.From
	if from == "" {
		f.Add("write https://app.example.com", "the address of the route is missing")
		return
	}
	if entry.tunnel != nil {
		t.place(entry, &t.tcp, entry.tunnel.from, "", f)
		return
	}
	scheme, host, prefix, err := parseFrom(from)
	if err != nil {
		f.Add("write https://app.example.com or https://app.example.com/path", "%q: %v", from, err)
		return
	}
	if prefix+"/" == access.Prefix || strings.HasPrefix(prefix, access.Prefix) {
		f.Add("choose another path", "%q overlaps %s, which Doorward keeps for itself", from, access.Prefix)
		return
	}
	t.place(entry, t.scheme(scheme), host, prefix, f)
}

// place puts an entry where its address says, unless another one is there.
func (t *Table) place(entry *Entry, at *hosts, host, prefix string, f access.Faults) {
	byHost := at.exact
	if rest, ok := strings.CutPrefix(host, "*"); ok {
		byHost, host = at.wildcard, rest
	}
	s := byHost[host]
	if s == nil {
		s = &site{byPrefix: map[string]*Entry{}}
		byHost[host] = s
	}
	if other := s.byPrefix[prefix]; other != nil {
		cure := "let one of them differ in host or path"
		if entry.tunnel != nil {
			cure = "let one of them differ in host or port"
		}
		f.Add(cure, "%q is also the address of route %q", entry.Route.From, other.Route.ID)
		return
	}
	s.byPrefix[prefix] = entry
	s.depth = max(s.depth, strings.Count(prefix, "/"))
}

// parseFrom reads a route's address. The host may begin with "*.".
func parseFrom(from string) (scheme, host, prefix string, err error) {
	u, err := url.Parse(from)
	switch {
	case err != nil:
		return "", "", "", errNotURL
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "", "", errNotHTTP
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "":
		return "", "", "", errNotOriginAndPath
	}
	host, wild := strings.CutPrefix(u.Host, "*.")
	if host, err = canonicalHost(host, u.Scheme); err != nil {
		return "", "", "", err
	}
	if wild {
		host = "*." + host
	}
	if path := strings.TrimSuffix(u.EscapedPath(), "/"); path != "" {
		p, err := parsePathname(path)
		if err != nil {
			return "", "", "", err
		}
		if p.Ambiguous != 0 {
			return "", "", "", errAmbiguousPrefix
		}
		prefix = p.Path
	}
	return u.Scheme, host, prefix, nil
}

// Match returns the route of an address, or nil. Host and path are canonical.
// The most specific host wins, an exact name over a wildcard, and on that host
// the longest path; there is no falling back to another host.
func (t *Table) Match(scheme, host, path string) *Entry {
	s := t.site(scheme, host)
	if s == nil {
		return nil
	}
	// Prefixes end at slashes, and none has more of them than depth, so that a
	// path of a thousand segments costs no more than a short one.
	end := cutSegments(path, s.depth)
	for {
		if entry := s.byPrefix[path[:end]]; entry != nil {
			return entry
		}
		if end == 0 {
			return nil
		}
		end = max(0, strings.LastIndexByte(path[:end], '/'))
	}
}

// cutSegments returns the length of the first n segments of path.
func cutSegments(path string, n int) int {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		if n == 0 {
			return i
		}
		n--
	}
	return len(path)
}

func (t *Table) site(scheme, host string) *site {
	at := t.scheme(scheme)
	if at == nil {
		return nil
	}
	if s := at.exact[host]; s != nil {
		return s
	}
	if dot := strings.IndexByte(host, '.'); dot > 0 {
		return at.wildcard[host[dot:]] // exactly one label below
	}
	return nil
}

func (t *Table) owns(scheme, host string) bool { return t.site(scheme, host) != nil }

// Owns reports whether an origin such as https://app.example.com belongs to one
// of the routes. Logins return to no other, except to the login host.
func (t *Table) Owns(origin string) bool {
	scheme, host, ok := strings.Cut(origin, "://")
	return ok && t.owns(scheme, host)
}

// Entries yields every route of the table, in no particular order.
func (t *Table) entries(yield func(*Entry) bool) {
	for _, at := range []hosts{t.http, t.https, t.tcp} {
		for _, sites := range []map[string]*site{at.exact, at.wildcard} {
			for _, s := range sites {
				for _, entry := range s.byPrefix {
					if !yield(entry) {
						return
					}
				}
			}
		}
	}
}

// newEntry compiles everything about a route except who may use it. sets are the
// headers of the routes before.
func newEntry(route *access.Route, sets map[string]headerSet, f access.Faults) *Entry {
	entry := &Entry{Route: route, timed: timed(route)}
	validateRouteLimits(route, f.At("limits"))
	entry.limits = newRouteLimits(&route.Limits)
	if strings.HasPrefix(route.From, "tcp:") {
		entry.compileTunnel(f)
		return entry
	}
	if len(route.Networks) > 0 {
		f.At("networks").Add("write tcp:// in from, or use networks of a rule to say where visitors come from", "only tunnels are limited in where they lead")
	}
	for i, name := range route.AmbiguousPaths {
		bit, ok := ambiguityNames[name]
		if !ok {
			f.At("ambiguous_paths[%d]", i).Add("one of encoded_slash, encoded_percent, empty_segment, semicolon, backslash",
				"%q is no kind of ambiguity", name)
		}
		entry.ambiguous |= bit
	}
	entry.compileTargets(f)
	entry.compileHeaders(sets, f.At("headers"))
	entry.compileShape(f)
	entry.compileUpstream(f.At("upstream"))
	validateUpstreamTLS(&route.UpstreamTLS, len(entry.targets) == 0 || entry.targets[0].Scheme == "https", f.At("upstream_tls"))
	checkOpen(route, f)
	if entry.h2c && route.WebSocket {
		f.At("websocket").Add("use http or https in to", "WebSocket needs an upstream that speaks HTTP/1.1")
	}
	return entry
}

// checkOpen reports what is wrong with what is said of open connections.
func checkOpen(route *access.Route, f access.Faults) {
	if r := route.Recheck; r != 0 && r.Std() < shortestRecheck {
		f.At("recheck").Add("write 60s", "%s is shorter than %s", r, shortestRecheck)
	}
	if grace := route.OnChange.CloseStreams; grace < 0 || grace.Std() > longestGrace {
		f.At("on_change.close_streams").Add("write 10s", "%s is not between 0 and %s", grace, longestGrace)
	}
}

// timed reports whether a rule of the route has a weekly window. Windows open and
// close on whole minutes.
func timed(route *access.Route) bool {
	hasWindow := func(r access.Rule) bool { return !r.Time.IsZero() }
	return slices.ContainsFunc(route.Allow, hasWindow) || slices.ContainsFunc(route.Deny, hasWindow)
}

func (e *Entry) compileTargets(f access.Faults) {
	scheme := ""
	for i, to := range e.Route.To {
		at := f.At("to[%d]", i)
		target, h2c, err := parseTo(to)
		if err != nil {
			at.Add("write https://10.0.0.7:8443", "%q: %v", to, err)
			continue
		}
		name, _, _ := strings.Cut(to, "://")
		if scheme != "" && name != scheme {
			at.Add("use one scheme for all upstreams of a route", "%q differs from %q in its scheme", to, e.Route.To[0])
			continue
		}
		scheme = name
		if target.Scheme == "http" && !access.Loopback(target.Hostname()) && e.Route.InsecureUpstream == "" {
			at.Add("use https, or give the reason in insecure_upstream", "%q carries requests in plaintext to another machine", to)
		}
		if slices.Contains(e.targets, target) {
			at.Add("keep one of them", "%q is listed twice", to)
			continue
		}
		e.targets, e.h2c = append(e.targets, target), h2c
	}
}

// parseTo reads an upstream address: an origin whose scheme may be h2c.
func parseTo(to string) (target url.URL, h2c bool, err error) {
	rest, h2c := strings.CutPrefix(to, "h2c://")
	if h2c {
		to = "http://" + rest
	}
	scheme, host, err := parseOrigin(to)
	return url.URL{Scheme: scheme, Host: host}, h2c, err
}

// forbiddenHeaders cannot be set by a route: they frame the message, or have a
// meaning of their own that a fact about a visitor would break.
var forbiddenHeaders = []string{"Authorization", "Connection", "Content-Length", "Cookie", "Expect", "Host", "Keep-Alive",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"}

func (e *Entry) compileHeaders(sets map[string]headerSet, f access.Faults) {
	said, faults := fmt.Sprintf("%q", e.Route.Headers), len(f.List()) // sorted by name
	if same, ok := sets[said]; ok {
		e.headerSet = same
		return
	}
	e.names = map[string]bool{}
	defer func() {
		if len(f.List()) == faults {
			sets[said] = e.headerSet
		}
	}()
	e.preset(f)
	for _, name := range slices.Sorted(maps.Keys(e.Route.Headers)) {
		if name == presetKey {
			continue
		}
		at, value := f.At("%s", name), e.Route.Headers[name]
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !validHeaderName(name):
			at.Add("use letters, digits and hyphens", "%q is no header name", name)
		case slices.Contains(forbiddenHeaders, canonical) || strings.HasPrefix(canonical, "Doorward-"):
			at.Add("choose another header", "%s is set by Doorward or by HTTP itself", canonical)
		case e.names[skeleton(name)]:
			at.Add("keep one of them", "%q is the same header as another one in a different spelling", name)
		default:
			if rule, ok := newHeaderRule(canonical, value); ok {
				e.headers = append(e.headers, rule)
			} else {
				at.Add("one of sub, user, email, name, username, groups, provider, device, claim.NAME", "%q is no fact about a visitor", value)
			}
		}
		e.names[skeleton(name)] = true
	}
}

// validHeaderName accepts letters, digits, hyphens and underscores; the latter
// because some applications insist on them.
func validHeaderName(name string) bool {
	return plainName(strings.ReplaceAll(name, "_", "-"))
}

// match is station 2: one route, or none.
func (p *passage) match() error {
	req := p.req
	entry := p.gen.Routes.Match(req.Scheme, req.Host, req.Path)
	if entry == nil {
		return access.Becausef(access.NoRoute, "no route for %s", strconv.Quote(req.Origin()))
	}
	p.entry, req.Route = entry, entry.Route.ID
	if p.question != nil && p.question.Route != "" && p.question.Route != entry.Route.ID {
		return access.Becausef(access.BadRequest, "the front end asks on behalf of route %s, the address is one of route %s",
			strconv.Quote(p.question.Route), entry.Route.ID)
	}
	if extra := p.path.Ambiguous &^ entry.ambiguous; extra != 0 {
		return access.Because(access.AmbiguousPath, errAmbiguous)
	}
	// Only now is it known which other headers this upstream would believe.
	if len(entry.names) > 0 && p.before == nil {
		for name := range p.in.Header {
			if entry.believes(name) {
				delete(p.in.Header, name)
			}
		}
	}
	return nil
}
