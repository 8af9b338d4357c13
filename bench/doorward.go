package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// door is a Doorward with a configuration, and what is asked of it. The zero
// value of a field is what the first table measures.
type door struct {
	name   string
	binary string // default: the one that was built
	tls    bool
	path   string // default smallPath
	size   int    // default smallSize

	routes   int // default 1; each has five rules
	sessions int // that the store holds; default 1
	groups   int // of each user; default 5

	// returns is how long it must be quiet before it gives memory back; default: as
	// long as Doorward does.
	returns string

	// asks is what the requests carry.
	asks asks
	// rotation is over how many sessions, routes or tokens the requests go in
	// turn. Default 1.
	rotation int
}

type asks int

const (
	forSession asks = iota // a session's cookie
	forNothing             // a public path
	forRS256               // an access token
	forES256
	forRoutes // the cookie of a session with another route each time
)

// participant returns the door as one that takes part in a comparison. Another
// build of Doorward does the same beside it, if there is one.
func (d door) participants() []participant {
	list := []participant{{d.name, d.start}}
	if base := os.Getenv("DOORWARD_BASE"); base != "" {
		other := d
		other.binary = base
		list = append(list, participant{d.name + " (base)", other.start})
	}
	return list
}

func (d door) start(b *bench) (*server, error) {
	s, err := d.prepare(b)
	if err != nil {
		return nil, err
	}
	return s.start()
}

// site is a Doorward whose files are written.
type site struct {
	*bench
	door
	dir    string
	config string
	load   load
}

// prepare writes the configuration and the sessions.
func (d door) prepare(b *bench) (*site, error) {
	d.routes, d.sessions, d.groups, d.rotation = max(1, d.routes), max(1, d.sessions), max(5, d.groups), max(1, d.rotation)
	if d.path == "" {
		d.path, d.size = smallPath, smallSize
	}
	if d.binary == "" {
		d.binary = b.doorward
	}
	dir, err := b.folder("doorward")
	if err != nil {
		return nil, err
	}
	s := &site{bench: b, door: d, dir: dir, config: filepath.Join(dir, "doorward.yaml")}
	if s.load.address, err = b.freeAddress(); err != nil {
		return nil, err
	}
	s.load.scheme, s.load.path, s.load.size = "http", d.path, d.size
	if d.tls {
		s.load.scheme = "https"
	}
	s.load.host = s.host(0)
	admin, err := b.freeAddress()
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"doorward.yaml": s.configuration(admin), "client-secret": clientSecret} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return s, s.ask()
}

// start starts the program, and waits until it listens.
func (s *site) start() (*server, error) {
	p, err := start(s.proxyCore, s.dir, nil, s.binary, "serve", "--config", s.config)
	if err != nil {
		return nil, err
	}
	return s.ready(p, s.load)
}

// host is where route i is found.
func (s *site) host(i int) string {
	_, port, _ := strings.Cut(s.load.address, ":")
	if i == 0 {
		return "app.localhost:" + port
	}
	return fmt.Sprintf("app-%d.localhost:%s", i, port)
}

// ask prepares what the requests carry.
func (s *site) ask() error {
	switch s.asks {
	case forNothing:
		s.load.path = "/public" + s.load.path
		return nil
	case forRS256:
		return s.askWithTokens("RS256")
	case forES256:
		return s.askWithTokens("ES256")
	}
	cookies, err := s.keepSessions()
	if err != nil {
		return fmt.Errorf("writing sessions: %w", err)
	}
	name := "doorward"
	if s.tls {
		name = "__Host-doorward"
	}
	if s.rotation == 1 {
		s.load.header = http.Header{"Cookie": {name + "=" + cookies[0]}}
		return nil
	}
	s.load.cycle = &cycle{header: "Cookie", prefix: name + "=", values: filepath.Join(s.dir, "cookies")}
	if s.asks == forRoutes {
		hosts := make([]string, len(cookies))
		for i := range hosts {
			hosts[i] = s.host(i)
		}
		s.load.cycle.hosts = filepath.Join(s.dir, "hosts")
		if err := writeLines(s.load.cycle.hosts, hosts); err != nil {
			return err
		}
	}
	return writeLines(s.load.cycle.values, cookies)
}

func (s *site) askWithTokens(algorithm string) error {
	path, err := s.accessTokens(algorithm, s.rotation)
	if err != nil {
		return err
	}
	if s.rotation > 1 {
		s.load.cycle = &cycle{header: "Authorization", prefix: "Bearer ", values: path}
		return nil
	}
	s.load.header, err = firstBearer(path)
	return err
}

// configuration is what an operator would write for five rules on each route,
// without a line for speed, except that what comes from here is not taken for one
// network that floods, and that nobody waits a minute to look at idle memory. The
// operator's log keeps to warnings, as the other participants keep no access log;
// the audit log has every request.
func (s *site) configuration(admin string) string {
	var c strings.Builder
	tls := ""
	if s.tls {
		tls = fmt.Sprintf(", tls: {certificates: [{cert: %s, key: %s}]}", s.cert.cert, s.cert.key)
	}
	returns := ""
	if s.returns != "" {
		returns = ", return_memory_after: " + s.returns
	}
	fmt.Fprintf(&c, `version: 1
server: {listen: %q, admin: {listen: %q}, limits: {exempt: [127.0.0.0/8]}%s%s}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: client-secret}, groups_claim: groups, audiences: [%s]}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {level: warn}
groups:
  readers: {provider: corp, claim_groups: [group-0]}
  writers: {provider: corp, claim_groups: [group-1]}
  contractors: {provider: corp, claim_groups: [contractors]}
routes:
`, s.load.address, admin, tls, returns, s.issuer, audience)
	for i := range s.routes {
		fmt.Fprintf(&c, `  - id: app-%d
    from: %q
    to: ["http://%s"]
    websocket: true
    headers: {X-Forwarded-User: user, X-Forwarded-Email: email, X-Forwarded-Groups: groups}
    allow:
      - {name: readers, groups: [readers], methods: [GET, HEAD], paths: ["/**"]}
      - {name: writers, groups: [writers], methods: [POST, PUT, PATCH], paths: ["/orders/**"]}
      - {name: batch, client_ids: ["corp:batch"], scopes: [orders.read]}
    deny:
      - {name: no-contractors, groups: [contractors]}
      - {name: no-administration, paths: ["/admin/**"], methods: [DELETE, POST, PUT]}
    public: [{name: anybody, methods: [GET], paths: ["/public/**"]}]
`, i, s.load.scheme+"://"+s.host(i), s.backend)
	}
	return c.String()
}
