package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// The one corpus that goes through every door: who asks, on what, how, for what,
// and what they claim about themselves.
type sample struct {
	name, method, target string
	header               []string // names and values
}

const corpusHost = "wiki.localhost"

// nastyTargets are addresses on which servers disagree, or that try to be another.
var nastyTargets = []string{
	"/", "/a", "/a/", "/a?b=c", "/a?b=c&b=d;e", "/a?", "/a?as=page", "/a?as=status", "/a?as=page&as=x", "/a%20b", "/a%2Db", "/a+b", "/~a", "/%61", "/admin", "/admin/", "/adminx", "/Admin/x", "/admin/x?y=/public/",
	"/public/a", "/public", "/public/", "/public/../a", "/public/%2e%2e/a", "/public/..%2fa", "/public/..;/a", "/public//a", "/public/./a", "/public/%2e/a",
	"//admin/x", "/a//admin/x", "/./admin/x", "/../admin/x", "/a/../admin/x", "/%2e%2e/admin/x", "/%61dmin/x", "/admin%2fx", "/admin%2Fx", "/admin%5cx", "/admin\\x",
	"/admin;x=y/z", "/admin%3bx", "/admin%00", "/admin%0d%0ax: y", "/admin%252fx", "/admin%2", "/admin%zz", "/admin/%c0%ae%c0%ae/x", "/admin/\xc3\xa9", "/admin/%C3%A9",
	"/closed/a", "/closed%2fa", "/Closed/a", "/closed", "/x/../closed/a", "/closed//a", "/.doorward/auth", "/.doorward%2flogin", "/.well-known/x", "/a#b", "http://wiki.localhost/a", "http://evil.example/a", "*",
	"/a?x=%0d%0a", "/a?x=\"<>", "/a?token=secret", "/a|b", "/a{b}", "/a^b", "/a`b", "/a'b", "/a(b)", "/a*", "/a,b", "/a:b", "/a@b", "/a!b$",
}

// claims are headers by which visitors say who they are, or what they really ask
// for. None may count, and none may reach the application.
var spoofedHeaders = [][]string{
	{"X-Forwarded-User", "spoofed-root"}, {"x-forwarded-user", "spoofed-root"}, {"X_Forwarded_User", "spoofed-root"}, {"X-Forwarded_User", "spoofed-root"}, {"X.Forwarded.User", "spoofed-root"},
	{"X-Forwarded-User", "spoofed-root", "X-Forwarded-User", "spoofed-other"}, {"X-Forwarded-Email", "spoofed-root@corp.example"}, {"X-Forwarded-Groups", "spoofed-admins"},
	{"Doorward-Assertion", "spoofed.assertion"}, {"Doorward_Assertion", "spoofed.assertion"}, {"Remote-User", "spoofed-root"}, {"Remote_User", "spoofed-root"}, {"X-Remote-User", "spoofed-root"},
	{"X-Auth-Request-User", "spoofed-root"}, {"X-Auth-Request-Email", "spoofed-root"}, {"X-Goog-Authenticated-User-Email", "accounts.google.com:spoofed-root"}, {"X-Goog-IAP-JWT-Assertion", "spoofed.assertion"},
	{"Cf-Access-Jwt-Assertion", "spoofed.assertion"}, {"Cf-Access-Authenticated-User-Email", "spoofed-root"}, {"X-Pomerium-Jwt-Assertion", "spoofed.assertion"}, {"X-Pomerium-Claim-Email", "spoofed-root"},
	{"X-Authentik-Username", "spoofed-root"}, {"X-WebAuth-User", "spoofed-root"}, {"X-Amzn-Oidc-Identity", "spoofed-root"}, {"Client-Cert", ":c3Bvb2ZlZA==:"},
	{"X-Forwarded-Client-Cert", "By=spoofed"}, {"X-SSL-Client-Cert", "spoofed"}, {"SSL-Client-Verify", "spoofed"},
	{"X-Forwarded-For", "10.0.0.1"}, {"X-Forwarded-For", "10.0.0.1, 127.0.0.1"}, {"Forwarded", "for=10.0.0.1;host=spoofed.example"}, {"X-Real-IP", "10.0.0.1"}, {"True-Client-IP", "10.0.0.1"},
	{"X-Forwarded-Proto", "https"}, {"X-Forwarded-Host", "spoofed.example"}, {"X-Forwarded-Uri", "/public/a"}, {"X-Original-URL", "http://wiki.localhost/public/a"}, {"X-Original-URI", "/public/a"},
	{"X-Forwarded-Method", "GET"}, {"X-Original-Method", "GET"}, {"X-HTTP-Method-Override", "DELETE"}, {"X-Rewrite-URL", "/public/a"}, {"X-Request-Id", "spoofed-request-1"},
	{"Connection", "X-Forwarded-User, Doorward-Assertion, Cookie"}, {"X-Envoy-External-Address", "10.0.0.1"}, {"Cookie", "doorward=spoofed"}, {"Cookie", "__Host-doorward=spoofed"},
	{"Authorization", "Bearer spoofed"}, {"Authorization", "Basic cm9vdDpyb290"}, {"Content-Type", "application/grpc"}, {"Sec-Fetch-Mode", "cors"}, {"Origin", "https://spoofed.example"},
}

// corpus crosses all of it. People are known by a header of theirs.
func corpus(people map[string][]string) (list []sample) {
	add := func(who, method, target string, more ...string) {
		list = append(list, sample{fmt.Sprintf("%s %s %q %q", who, method, target, more), method, target, slices.Concat([]string{"Accept", "text/html"}, people[who], more)})
	}
	for _, who := range slices.Sorted(maps.Keys(people)) {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND"} {
			for _, target := range []string{"/a", "/admin/x", "/public/a", "/closed/a"} {
				add(who, method, target)
			}
		}
	}
	for _, who := range []string{"alice", "nobody"} {
		for _, target := range nastyTargets {
			add(who, "GET", target)
		}
		for _, headers := range spoofedHeaders {
			add(who, "GET", "/admin/x", headers...)
		}
	}
	add("alice", "get", "/a")
	add("alice", "CONNECT", "/a")
	add("alice", "GET", "/a", "X-Big", strings.Repeat("a", 7000))
	add("alice", "GET", "/a", "Upgrade", "websocket", "Connection", "upgrade", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version", "13")
	return list
}

// outcome is what became of a sample at one door.
type outcome struct {
	decided         bool
	verdict         access.Outcome
	reason          access.Reason
	route           string
	status          int
	reached         bool // the application
	another         bool // the application was asked for something else than what was decided on
	contradictory   bool // two records that do not say the same
	spoofed, stolen string
}

func (o outcome) String() string {
	if !o.decided {
		return fmt.Sprintf("not asked about, answered %d", o.status)
	}
	return fmt.Sprintf("%s, %s", o.verdict, o.reason)
}

// rememberingApp is the application. It knows its visitors by their addresses.
type rememberingApp struct {
	mu   sync.Mutex
	seen map[string]seen
}

func (a *rememberingApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[r.Header.Get("X-Forwarded-For")] = seen{r.Method, r.RequestURI, r.Header.Clone()}
	io.WriteString(w, "<p>the application</p>")
}

// addressOf gives every sample at every door an address of its own on this
// machine, by which records and applications tell them apart.
func addressOf(door, i int) net.IP { return net.IPv4(127, byte(10+door), byte(i>>8), byte(i)) }

// ask sends a sample as it is, byte by byte.
func (s *sample) ask(front string, from net.IP) (status int, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	conn, err := dialer.Dial("tcp", front)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", s.method, s.target, corpusHost)
	connection := "close"
	for i := 0; i < len(s.header); i += 2 {
		if s.header[i] == "Connection" {
			connection += ", " + s.header[i+1]
			continue
		}
		fmt.Fprintf(&b, "%s: %s\r\n", s.header[i], s.header[i+1])
	}
	fmt.Fprintf(&b, "Connection: %s\r\n", connection)
	if s.method == "POST" {
		b.WriteString("Content-Length: 0\r\n")
	}
	if _, err := io.WriteString(conn, b.String()+"\r\n"); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: s.method})
	if err != nil {
		return 0, err
	}
	io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Body.Close()
}

// envoyAsks puts the question as Envoy would that is the edge (use_remote_address)
// and does to the request what Envoy does. It returns the headers for the
// application, if it gets the request.
func (s *sample) envoyAsks(t *testing.T, client authv3.AuthorizationClient, from net.IP) (int, http.Header) {
	fields := map[string]string{}
	for i := 0; i < len(s.header); i += 2 {
		name, value := strings.ToLower(s.header[i]), s.header[i+1]
		if name == "connection" || name == "upgrade" && !strings.Contains(fmt.Sprint(s.header), "websocket") {
			continue // Envoy frames the connection itself
		}
		join := ","
		if name == "cookie" {
			join = "; "
		}
		if before, there := fields[name]; there {
			value = before + join + value
		}
		fields[name] = value
	}
	if fields["upgrade"] != "" {
		fields["connection"] = "upgrade"
	}
	maps.Copy(fields, map[string]string{":method": s.method, ":path": s.target, ":scheme": "http", ":authority": corpusHost, "x-forwarded-proto": "http"})
	fields["x-request-id"] = rand.Text() // which an edge does not take from visitors
	fields["x-forwarded-for"] = strings.TrimPrefix(fields["x-forwarded-for"]+","+from.String(), ",")
	asked := &authv3.AttributeContext_HttpRequest{Method: s.method, Path: s.target, Host: corpusHost, Scheme: "http", Protocol: "HTTP/1.1", Headers: fields, Size: -1}
	res, err := client.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: from.String()}}}},
		Request: &authv3.AttributeContext_Request{Http: asked},
	}})
	if err != nil {
		return 0, nil // a question that no protobuf can hold is one that Envoy cannot ask
	}
	ok := res.GetOkResponse()
	if ok == nil {
		return int(res.GetDeniedResponse().GetStatus().GetCode()), nil
	}
	for _, h := range ok.GetHeaders() {
		fields[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	for _, name := range ok.GetHeadersToRemove() {
		delete(fields, name)
	}
	header := http.Header{}
	for name, value := range fields {
		if !strings.HasPrefix(name, ":") {
			header.Set(name, value)
		}
	}
	return 200, header
}

// TestOneVerdict sends one corpus through every door. The doors are five ways into
// one doorward: what it decides, and why, may not depend on which of them a
// request took.
func TestOneVerdict(t *testing.T) {
	app := &rememberingApp{seen: map[string]seen{}}
	upstream := serveApp(t, app.ServeHTTP)
	dir := t.TempDir()
	visitors, asking, envoy := freeAddress(t), freeAddress(t), freeAddress(t)
	provider := startProvider(t, "http://"+corpusHost+"/.doorward/callback", func(o *testidp.Options) {
		person := func(name, device string, groups ...string) testidp.User {
			u := testidp.User{Username: name, Password: "demo", Email: name + "@example.com", Groups: groups}
			if device != "" {
				u.Claims = map[string]any{"deviceid": device}
			}
			return u
		}
		o.Users = []testidp.User{person("alice", "managed-laptop", "eng"), person("ann", "own-laptop", "eng"), person("amy", "stolen-laptop", "eng"), person("abe", "", "eng"),
			person("bob", "managed-laptop", "sales")}
	})
	writeFile(t, dir, "secret", "s3cret")
	now := time.Now().UTC().Format(time.RFC3339)
	writeFile(t, dir, "devices.csv", "id,owner,managed,last_seen\nmanaged-laptop,,yes,"+now+"\nown-laptop,,no,"+now+"\n")
	log := filepath.Join(dir, "audit.jsonl")
	agent := "unix:" + filepath.Join(dir, "agent.sock")
	d := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server:
  listen: %s
  admin: {listen: %s}
  trusted_proxies: [127.0.0.1]
  forward_auth: {listen: %s}
  ext_authz: {listen: %s}
  spoe: {listen: %q}
sessions: {store: {memory: true}}
log: {format: text}
audit: {to: [{file: {path: audit.jsonl}}]}
providers: [{id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}, audiences: [wiki-api]}]
groups: {engineers: {provider: corp, claim_groups: [eng]}}
devices:
  sources: [{id: list, type: file, path: devices.csv}]
  match: [claim.deviceid]
  profiles: {managed: {all: [known, managed]}}
routes:
  - id: wiki
    from: http://%[7]s
    to: [%[8]s]
    headers: {X-Forwarded-User: user, X-Forwarded-Email: email, X-Forwarded-Groups: groups}
    public: [{name: public, methods: [GET], paths: ["/public/**"]}]
    deny: [{name: closed, paths: ["/closed/**"]}]
    allow: [{name: engineers, groups: [engineers]}, {name: batch, client_ids: ["corp:batch"], scopes: [read], methods: [GET]}]
  - id: admin
    from: http://%[7]s/admin
    to: [%[8]s]
    headers: {X-Forwarded-User: user, X-Forwarded-Email: email, X-Forwarded-Groups: groups}
    require: {device: managed}
    allow: [{name: engineers, groups: [engineers], methods: [GET, HEAD, POST]}]
`, visitors, freeAddress(t), asking, envoy, agent, provider.Issuer(), corpusHost, upstream)))
	d.waitFor("msg=serving", 1)

	people := map[string][]string{"nobody": nil, "forger": {"Cookie", "doorward=" + strings.Repeat("A", 43)}}
	for _, name := range []string{"alice", "ann", "amy", "abe", "bob"} {
		v := newVisitor(t)
		v.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == corpusHost+":80" {
				address = visitors
			}
			return dialLocalhost(ctx, network, address)
		}
		v.login("http://"+corpusHost+"/hello", name)
		at, err := url.Parse("http://" + corpusHost + "/")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.client.Jar.Cookies(at) {
			if c.Name == "doorward" {
				people[name] = []string{"Cookie", "theme=dark; doorward=" + c.Value}
			}
		}
		if people[name] == nil {
			t.Fatalf("%s is not logged in", name)
		}
	}
	for name, aud := range map[string]string{"batch": "wiki-api", "foreign batch": "another-api"} {
		header := provider.Header()
		header["typ"] = "at+jwt"
		token, err := provider.Sign(header, map[string]any{"iss": provider.Issuer(), "sub": "batch", "client_id": "batch", "aud": aud, "scope": "read",
			"jti": rand.Text(), "iat": time.Now().Unix(), "exp": time.Now().Unix() + 600})
		if err != nil {
			t.Fatal(err)
		}
		people[name] = []string{"Authorization", "Bearer " + token}
	}
	list := corpus(people)
	if len(list) < 300 {
		t.Fatalf("the corpus has %d samples", len(list))
	}

	doors := []string{"standalone", "nginx", "caddy", "haproxy", "envoy"}
	results := make([][]outcome, len(doors))
	fronts := map[string]string{"standalone": visitors}
	for _, name := range doors[1:4] {
		fronts[name] = startFront(t, frontEnds[name], visitors, asking, upstream, agent)
	}
	conn, err := grpc.NewClient("passthrough:///"+envoy, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := authv3.NewAuthorizationClient(conn)
	for door, name := range doors {
		results[door] = make([]outcome, len(list))
		for i := range list {
			o := &results[door][i]
			if name != "envoy" {
				if o.status, err = list[i].ask(fronts[name], addressOf(door, i)); err != nil {
					o.status = 0 // the front end has closed the connection
				}
				continue
			}
			var header http.Header
			if o.status, header = list[i].envoyAsks(t, client, addressOf(door, i)); header != nil {
				app.mu.Lock()
				app.seen[addressOf(door, i).String()] = seen{list[i].method, list[i].target, header}
				app.mu.Unlock()
			}
		}
	}
	d.stop()

	byAddress := map[string][]access.Event{}
	for _, e := range events(t, log) {
		if e.Kind == access.EventDecision {
			ip := e.Request.Network.IP.String()
			byAddress[ip] = append(byAddress[ip], e)
		}
	}
	for door := range doors {
		for i := range list {
			o := &results[door][i]
			ip := addressOf(door, i).String()
			for n, e := range byAddress[ip] {
				if e.Decision == nil {
					continue
				}
				if n > 0 && o.decided && (o.verdict != e.Decision.Outcome || o.reason != e.Decision.Reason) {
					o.contradictory = true
				}
				o.decided, o.verdict, o.reason, o.route = true, e.Decision.Outcome, e.Decision.Reason, e.Request.Route
			}
			var got seen
			if got, o.reached = app.seen[ip]; !o.reached {
				continue
			}
			o.spoofed = spoofedIn(got.Header)
			if strings.Contains(fmt.Sprint(got.Header["Cookie"]), "doorward=") {
				o.stolen = "the session's cookie"
			} else if got.Header.Get("Authorization") != "" && strings.Contains(list[i].name, "batch") {
				o.stolen = "the access token"
			}
			at, err := url.ParseRequestURI(got.URI)
			o.another = err != nil || len(byAddress[ip]) == 0 || got.Method != byAddress[ip][0].Request.Method || at.Path != byAddress[ip][0].Request.Path
		}
	}

	named := map[string]int{}
	counts := map[access.Outcome]int{}
	for i, s := range list {
		want := results[0][i]
		counts[want.verdict]++
		for door, name := range doors {
			got := results[door][i]
			switch {
			case got.contradictory:
				t.Errorf("%s: %s: two records say different things", name, s.name)
			case got.reached && (!got.decided || got.verdict != access.Allow):
				t.Errorf("%s: %s: the application was reached: %s", name, s.name, got)
			case got.another:
				t.Errorf("%s: %s: the application was asked for %+v", name, s.name, app.seen[addressOf(door, i).String()])
			case got.spoofed != "":
				t.Errorf("%s: %s: the application was told %s", name, s.name, got.spoofed)
			case got.stolen != "":
				t.Errorf("%s: %s: the application got %s", name, s.name, got.stolen)
			case got.verdict == want.verdict && got.reason == want.reason && got.route == want.route && got.decided == want.decided:
			default:
				why := difference(name, s, want, got)
				if why == "" {
					t.Errorf("%s: %s: %s; standalone: %s", name, s.name, got, want)
				}
				named[name+": "+why]++
			}
		}
	}
	t.Logf("%d samples at %d doors; standalone: %d allowed, %d challenged, %d denied", len(list), len(doors), counts[access.Allow], counts[access.Challenge], counts[access.Deny])
	for _, why := range slices.Sorted(maps.Keys(named)) {
		t.Logf("%3d × %s", named[why], why)
	}
	if counts[access.Allow] < 50 || counts[access.Challenge] < 50 || counts[access.Deny] < 50 {
		t.Error("the corpus does not tell doors apart that always say the same")
	}
}

// spoofedIn returns what an application would believe that the visitor made up.
func spoofedIn(header http.Header) string {
	for name, values := range header {
		if strings.Contains(strings.Join(values, " "), "spoofed") && name != "Authorization" && name != "Cookie" && name != "Origin" {
			return fmt.Sprintf("%s: %q", name, values)
		}
	}
	return ""
}

// ownRefusals are what the front ends do not ask about, because they refuse it
// themselves.
var ownRefusals = map[string][]string{
	"nginx": {"/../admin/x", "/%2e%2e/admin/x", "/admin%00", "*", "get", "CONNECT"},
	// Another host in the address is one that this Caddy does not serve; it answers
	// with an empty page.
	"caddy": {"http://evil.example/a"},
	// "*" has no path to ask about, so the agent answers that the question means
	// nothing.
	"haproxy": {"/admin/\xc3\xa9", "/a#b", "http://evil.example/a", "*", "CONNECT"},
}

// cleaned is what a front end turns into another address before it asks, and then
// forwards as it has asked: the decision is on what the application gets.
var cleaned = map[string][]string{
	// The absolute form becomes a path, and its host is ignored in favour of Host.
	"nginx": {"http://wiki.localhost/a", "http://evil.example/a"},
	// So it does here, where both hosts have to be the same.
	"haproxy": {"http://wiki.localhost/a"},
	// Caddy also encodes what an address may not hold, the sign of a fragment among it.
	"caddy": {"http://wiki.localhost/a", "/admin/\xc3\xa9", "/a#b", "/a|b", "/a{b}", "/a^b", "/a`b"},
}

// difference names what doors read differently, where that opens nothing. The
// stricter reading wins: a front end may refuse what Doorward would not, and where
// Doorward itself refuses, a front end may only ask about something else and
// forward that. Whatever is not named here is a fault.
func difference(door string, s sample, want, got outcome) string {
	switch {
	case !got.decided && !got.reached && (slices.Contains(ownRefusals[door], s.target) || slices.Contains(ownRefusals[door], s.method)):
		return "refuses it without asking"
	case !want.decided && !want.reached && want.status >= 400 && got.verdict != access.Allow && !got.reached:
		return "asks about what the standalone door refuses before it is a request, or answers as an address of its own, and is told no"
	case slices.Contains(cleaned[door], s.target):
		return "asks about, and forwards, a plain address instead"
	case door == "caddy" && slices.Contains(s.header, "X-Forwarded-User, Doorward-Assertion, Cookie") && got.verdict == access.Challenge:
		return "lets Connection remove the session's cookie"
	}
	return ""
}

func reachable(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// HAProxy lets nobody through while the agent does not answer.
func TestHAProxyWithoutTheAgent(t *testing.T) {
	app := &rememberingApp{seen: map[string]seen{}}
	front := startFront(t, frontEnds["haproxy"], freeAddress(t), freeAddress(t), serveApp(t, app.ServeHTTP), "unix:"+filepath.Join(t.TempDir(), "nobody.sock"))
	for _, s := range []sample{{method: "GET", target: "/public/a"}, {method: "POST", target: "/a", header: []string{"Cookie", "doorward=x"}}} {
		if status, err := s.ask(front, net.IPv4(127, 0, 0, 1)); err != nil || status != 503 || len(app.seen) > 0 {
			t.Errorf("%d %v %v", status, err, app.seen)
		}
	}
}
