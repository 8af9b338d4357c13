package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

// A world is a company with routes, people and their habits. All of it follows
// from the seed.
type world struct {
	t      testing.TB
	rand   *rand.Rand
	people []person
	routes []app
	end    time.Time
	days   int
}

type person struct {
	sub    string
	groups []string // of the configuration; the provider claims them as "idp-NAME"
}

// app is a route with what people do there.
type app struct {
	id      string
	yaml    string
	habits  []habit
	planted []string // what Suggest has to find
}

// habit is what members of a group do on a route.
type habit struct {
	group   string
	methods []string
	paths   []string
	// perDay is the number of requests of all members together; seasonal ones
	// happen around the end of a quarter only.
	perDay   int
	seasonal bool
	// only is a number of requests in all, from one person, in place of perDay.
	only int
}

var windowEnd = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, seed uint64) *world {
	return &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), end: windowEnd, days: 90}
}

var worldGroups = []string{"dev", "ops", "sales", "finance", "hr", "support", "legal", "audit"}

// hire makes people; each is in one or two groups, and each group has some who
// are in no other.
func (w *world) hire(n int) {
	for i := range n {
		p := person{sub: fmt.Sprintf("u%03d", i), groups: []string{worldGroups[i%len(worldGroups)]}}
		if i >= 4*len(worldGroups) && w.rand.IntN(4) == 0 {
			p.groups = append(p.groups, worldGroups[w.rand.IntN(len(worldGroups))])
			slices.Sort(p.groups)
			p.groups = slices.Compact(p.groups)
		}
		w.people = append(w.people, p)
	}
}

// config writes the configuration of the world and loads it.
func (w *world) config(change ...string) *config.Config {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "doorward.yaml")
	text := strings.NewReplacer(change...).Replace(w.yaml())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, text)
	}
	return cfg
}

func (w *world) yaml() string {
	var b strings.Builder
	b.WriteString("version: 1\nserver: {listen: \"127.0.0.1:8443\", trusted_proxies: [\"127.0.0.1\"]}\n")
	b.WriteString("providers:\n  - {id: corp, issuer: https://login.example, client_id: doorward, client_auth: none}\ngroups:\n")
	for _, g := range worldGroups {
		fmt.Fprintf(&b, "  %s: {provider: corp, claim_groups: [idp-%s]} # who works there\n", g, g)
	}
	b.WriteString("routes:\n")
	for _, r := range w.routes {
		b.WriteString(r.yaml)
	}
	return b.String()
}

// members are the people of a group, those who are in it alone first.
func (w *world) members(group string) (list []person) {
	for _, p := range w.people {
		if slices.Contains(p.groups, group) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b person) int { return len(a.groups) - len(b.groups) })
	return list
}

// live decides what everybody did and writes the log.
func (w *world) live(cfg *config.Config, out io.Writer) (n int) {
	w.t.Helper()
	b := bufio.NewWriterSize(out, 1<<20)
	defer b.Flush()
	for day := range w.days {
		date := w.end.AddDate(0, 0, day-w.days)
		for i := range w.routes {
			for _, h := range w.routes[i].habits {
				for range w.times(h, day, date) {
					n++
					encodeEvent(w.t, b, w.event(cfg, &w.routes[i], h, date, n))
				}
			}
		}
	}
	return n
}

// encodeEvent writes one line of a log.
func encodeEvent(t testing.TB, out io.Writer, e *access.Event) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
}

func (w *world) times(h habit, day int, date time.Time) int {
	switch {
	case h.only > 0:
		if day%(w.days/h.only) == 3 && day/(w.days/h.only) < h.only {
			return 1
		}
		return 0
	case h.seasonal && !quarterEnd(date):
		return 0
	}
	return h.perDay
}

func (w *world) event(cfg *config.Config, r *app, h habit, date time.Time, n int) *access.Event {
	crowd := w.members(h.group)
	who := crowd[w.rand.IntN(len(crowd))]
	if h.only > 0 {
		who = crowd[0]
	}
	at := date.Add(time.Duration(w.rand.IntN(24*3600)) * time.Second)
	path := h.paths[w.rand.IntN(len(h.paths))]
	if strings.Contains(path, "%d") {
		path = fmt.Sprintf(path, w.rand.IntN(100))
	}
	req := &access.Request{
		ID: fmt.Sprintf("%032x", n), Time: at, Door: access.Standalone, Method: h.methods[w.rand.IntN(len(h.methods))], Scheme: "https",
		Host: r.id + ".example.com", Path: path, Network: access.Network{IP: netip.AddrFrom4([4]byte{10, 1, 2, byte(n)})},
		Identity: access.Identity{
			Provider: "corp", Issuer: "https://login.example", Subject: who.sub, Email: who.sub + "@corp.example", EmailVerified: true, Name: "Somebody " + who.sub,
			Claims: map[string]any{"deviceid": "laptop-" + who.sub, "department": "R&D"},
			Login:  access.Login{Time: at.Add(-time.Hour), ACR: "mfa", AMR: []string{"mfa", "pwd"}, Levels: []string{"aal1", "aal2", "mfa"}},
		},
		Session: access.Session{ID: "s-" + who.sub, Created: at.Add(-time.Hour), Expires: at.Add(9 * time.Hour)},
		Device: access.Device{ID: "laptop-" + who.sub, MatchedBy: "claim.deviceid", Source: "intune", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes,
			DiskEncrypted: access.Yes, Jailbroken: access.No, OS: "macos", OSVersion: "15.5", SeenAt: at.Add(-time.Hour), ObservedAt: at},
	}
	for _, g := range who.groups {
		req.Identity.Groups = append(req.Identity.Groups, "idp-"+g)
	}
	req.Identity.Normalize()
	if entry := cfg.Table.Match(req.Scheme, req.Host, req.Path); entry != nil {
		req.Route = entry.Route.ID
	}
	decision := cfg.Policy.Decide(req)
	return &access.Event{Kind: access.EventDecision, Time: at, Request: req, Decision: &decision, RequestID: req.ID, Session: req.Session.ID,
		Response: access.Response{Status: 200, BytesOut: 1234, Duration: 12345678, Decide: 12345, Upstream: "http://127.0.0.1:3000"}}
}

// log writes the log of the world to a file.
func (w *world) log(cfg *config.Config) *audit.Files {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "audit.jsonl")
	file, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.live(cfg, file)
	if err := file.Close(); err != nil {
		w.t.Fatal(err)
	}
	return find(w.t, path)
}

func find(t testing.TB, names ...string) *audit.Files {
	t.Helper()
	files, err := audit.Find(names)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
