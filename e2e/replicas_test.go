package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store/redistest"
	"github.com/doorward/doorward/internal/testidp"
)

// fleet is several replicas behind one address.
type fleet struct {
	t        testing.TB
	provider *testidp.Provider
	port     string // of the address that visitors know
	replicas []*site
}

// startFleet runs n replicas of one configuration. sessions is its section.
func startFleet(t *testing.T, n int, sessions string) *fleet {
	t.Helper()
	return startFleetOf(t, n, sessions, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<p>hello %s</p>", r.Header.Get("X-User"))
	}, nil)
}

// startFleetOf is startFleet with another application, and with changes to the
// configuration of each replica, and more files beside it, given as name, content.
func startFleetOf(t testing.TB, n int, sessions string, handler http.HandlerFunc, edit func(text string) string, files ...string) *fleet {
	t.Helper()
	app := serveApp(t, handler)
	f := &fleet{t: t}
	_, f.port, _ = net.SplitHostPort(freeAddress(t))
	f.provider = startProvider(t, f.at("auth", "/.doorward/callback"), func(o *testidp.Options) {
		o.Clients[0].PostLogoutURI = testidp.Exactly(f.at("auth", "/.doorward/logout"))
	})
	for range n {
		s := &site{addr: freeAddress(t), admin: freeAddress(t), dir: t.TempDir()}
		writeFile(t, s.dir, "secret", "s3cret")
		for i := 0; i+1 < len(files); i += 2 {
			writeFile(t, s.dir, files[i], files[i+1])
		}
		text := fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}}
sessions: %s
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
routes:
  - {id: app, from: %q, to: [%q], headers: {X-User: user}, allow: [{name: all, any_user: true}]}
`, s.addr, f.at("auth", ""), s.admin, sessions, f.provider.Issuer(), f.at("app", ""), app)
		if edit != nil {
			text = edit(text)
		}
		s.config = writeFile(t, s.dir, "doorward.yaml", text)
		s.process = start(t, "doorward", "serve", "--config", s.config)
		f.replicas = append(f.replicas, s)
	}
	for _, s := range f.replicas {
		s.waitFor("msg=serving", 1)
	}
	return f
}

func (f *fleet) at(host, path string) string { return "http://" + host + ".localhost:" + f.port + path }

// visitor returns somebody whose requests the load balancer sends where next
// says. Visitors with the same jar are one person.
func (f *fleet) visitor(next func() int) *visitor {
	v := newVisitor(f.t)
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasSuffix(address, ".localhost:"+f.port) {
			address = f.replicas[next()].addr
		}
		return dialLocalhost(ctx, network, address)
	}}
	f.t.Cleanup(transport.CloseIdleConnections)
	v.client.Transport = transport
	return v
}

// via returns the same person at one replica.
func (f *fleet) via(v *visitor, replica int) *visitor {
	again := f.visitor(func() int { return replica })
	again.client.Jar = v.client.Jar
	return again
}

// onRedis is the section of a configuration that shares a server.
func onRedis(t testing.TB, server *redistest.Server) string {
	t.Helper()
	t.Setenv("REDIS_URL", "redis://"+server.Addr)
	return "{store: {redis: {url: {env: REDIS_URL}}}}"
}

// A load balancer without affinity: every request of a login may meet another
// replica. What one ends is over on all.
func TestReplicasAreOneDoor(t *testing.T) {
	server := redistest.Start(t)
	f := startFleet(t, 3, onRedis(t, server))
	var n atomic.Int32
	alice := f.visitor(func() int { return int(n.Add(1)) % 3 })
	alice.client.Transport.(*http.Transport).DisableKeepAlives = true // each request anew
	alice.login(f.at("app", "/"), "alice").says(t, 200, "hello corp:alice")
	keys := map[string]bool{}
	for i := range f.replicas {
		v := f.via(alice, i)
		v.open(f.at("app", "/")).says(t, 200, "hello corp:alice")
		keys[v.open(f.at("app", "/.doorward/jwks.json")).body] = true
	}
	if len(keys) != 1 {
		t.Errorf("the replicas sign with different keys: %v", keys)
	}

	t.Run("a warm session costs no command", func(t *testing.T) {
		v := f.via(alice, 0)
		items := func() int { return server.Calls("hmget", "hset", "evalsha", "eval") }
		v.open(f.at("app", "/"))
		before := items()
		for range 200 {
			v.open(f.at("app", "/")).says(t, 200)
		}
		if n := items() - before; n != 0 {
			t.Errorf("200 requests: %d commands", n)
		}
	})

	f.via(alice, 1).open(f.at("app", "/.doorward/logout"))
	for i := range f.replicas {
		eventually(t, "the end of the session", func() bool { return f.via(alice, i).once("GET", f.at("app", "/"), alice.header, nil).status == 302 })
	}
	for _, s := range f.replicas {
		if code := s.stop(); code != 0 {
			t.Errorf("a replica ended with %d", code)
		}
	}
}

// A hundred requests at once over three processes, on a session whose token has
// just run out, with a provider that takes its time: one redeem.
func TestThreeProcessesRedeemOnce(t *testing.T) {
	server := redistest.Start(t)
	f := startFleet(t, 3, onRedis(t, server))
	f.provider.Fault(func(faults *testidp.Faults) {
		faults.MutateTokens = func(answer map[string]any) { answer["expires_in"] = 1 }
	})
	slow := f.provider.Hold(testidp.Refresh)
	alice := f.visitor(func() int { return 0 })
	alice.login(f.at("app", "/"), "alice").says(t, 200, "hello corp:alice")
	f.provider.Fault(func(faults *testidp.Faults) { faults.MutateTokens = nil })
	var people []*visitor
	for i := range f.replicas {
		people = append(people, f.via(alice, i))
	}
	ranOut := time.Now().Add(2 * time.Second) // the token has been out for a second by then
	eventually(t, "the token to run out", func() bool { return time.Now().After(ranOut) })
	var requests sync.WaitGroup
	for i := range 100 {
		requests.Go(func() {
			v := people[i%3]
			req, err := http.NewRequest(http.MethodGet, f.at("app", "/"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = v.header.Clone()
			resp, err := v.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "corp:alice") {
				t.Errorf("request %d: %d %v", i, resp.StatusCode, err)
			}
		})
	}
	<-slow.Arrived()
	time.AfterFunc(time.Second, slow.Release)
	requests.Wait()
	for _, v := range people {
		v.open(f.at("app", "/")).says(t, 200, "hello corp:alice")
	}
	if n := f.provider.Requests(testidp.Refresh); n != 1 {
		t.Errorf("%d redeems", n)
	}
}

// A replica without its store says what is wrong, and what to do.
func TestReplicaNeedsItsStore(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://:hunter2@"+freeAddress(t))
	config := writeFile(t, t.TempDir(), "doorward.yaml", `version: 1
server: {listen: "127.0.0.1:0"}
sessions: {store: {redis: {url: {env: REDIS_URL}}}}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes: [{id: app, from: "http://app.localhost", to: ["http://127.0.0.1:1"], allow: [{name: all, any_user: true}]}]
`)
	ended := run(t, "doorward", "serve", "--config", config)
	if ended.code != 1 || !strings.Contains(ended.stderr, "start it, or correct sessions.store.redis.url") || strings.Contains(ended.stderr, "hunter2") {
		t.Errorf("ended with %d: %s", ended.code, ended.stderr)
	}
}

// How much a warm request costs with Redis, compared with the memory store in the
// same run, over the whole door. The ratio is printed, not judged: a machine that
// is busy otherwise may say anything.
func TestThroughputWithRedis(t *testing.T) {
	server := redistest.Start(t)
	kinds := []string{"memory", "redis"}
	fleets := []*fleet{startFleet(t, 1, "{store: {memory: true}}"), startFleet(t, 1, onRedis(t, server))}
	var people []*visitor
	for _, f := range fleets {
		v := f.visitor(func() int { return 0 })
		v.login(f.at("app", "/"), "alice").says(t, 200)
		people = append(people, v)
	}
	const turns, each = 10, 100
	var took [2]time.Duration
	for range turns {
		for i, v := range people {
			began := time.Now()
			for range each {
				if p := v.open(fleets[i].at("app", "/")); p.status != 200 {
					t.Fatalf("%s: %d", kinds[i], p.status)
				}
			}
			took[i] += time.Since(began)
		}
	}
	for i, kind := range kinds {
		t.Logf("%s: %.0f requests per second", kind, turns*each/took[i].Seconds())
	}
	t.Logf("redis takes %.3f times as long as memory", took[1].Seconds()/took[0].Seconds())
}
