package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/history"
)

// Every story ends with a proof: the audit log of each doorward it ran is read
// back, and each decision in it is made again, from the record alone, by the
// configuration that was in force. A verdict that depended on anything that is
// not in the record shows here, whatever the story was about.

// written holds the text of every configuration that stories wrote, by its
// version, since they replace their files.
var written sync.Map

// remember keeps a text that may be a configuration.
func remember(text []byte) {
	sum := sha256.Sum256(text)
	written.Store(hex.EncodeToString(sum[:6]), string(text))
}

// rememberFile keeps what is in a file, if there is one.
func rememberFile(path string) {
	if text, err := os.ReadFile(path); err == nil {
		remember(text)
	}
}

// decideAgain checks the log of a program that has ended. Programs that serve
// nothing have none.
func (p *process) decideAgain() {
	p.t.Helper()
	path := p.configuration()
	if path == "" {
		return
	}
	rememberFile(path)
	cfg, err := config.Load(path)
	log := p.output()
	if err == nil { // a story may end with a broken configuration
		for _, sink := range cfg.Audit.To {
			if sink.File.Path != "" {
				text, err := os.ReadFile(inDir(filepath.Dir(path), sink.File.Path))
				if err != nil && !os.IsNotExist(err) {
					p.t.Error(err)
				}
				log = string(text)
			}
		}
	}
	n := decideAgain(p.t, filepath.Dir(path), onlyEvents(log))
	p.t.Logf("%d decisions were made again from the audit log", n)
	if err == nil {
		p.replay(cfg, onlyEvents(log))
	}
}

// replay is `doorward replay` with the configuration of the story: it finds no
// change in what that configuration decided, and no line it cannot use.
func (p *process) replay(cfg *config.Config, log string) {
	p.t.Helper()
	files, err := audit.Find([]string{audit.Stdin})
	if err != nil {
		p.t.Fatal(err)
	}
	files.Stdin = strings.NewReader(log)
	report, err := history.Replay(context.Background(), files, cfg, history.Filter{})
	if err != nil {
		p.t.Fatal(err)
	}
	if report.Inconsistencies() > 0 || report.Log.Unusable() > 0 {
		var text strings.Builder
		report.WriteText(&text)
		p.t.Errorf("the replay of the story's own log:\n%s", text.String())
	}
}

// configuration is the file that the program serves with.
func (p *process) configuration() string {
	for flag, file := range map[string]string{"--config": "", "-state": "doorward.yaml"} {
		if i := slices.Index(p.cmd.Args, flag); i > 0 && i+1 < len(p.cmd.Args) {
			return filepath.Join(p.cmd.Args[i+1], file)
		}
	}
	return ""
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// onlyEvents leaves out what a program printed besides its events.
func onlyEvents(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if audit.Begins([]byte(line)) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// decideAgain makes every decision of a log again and reports those that end
// differently. Configurations are loaded as if they stood in dir.
func decideAgain(t errorer, dir, log string) (n int) {
	t.Helper()
	loaded := map[string]*config.Config{}
	for event, err := range audit.Read(strings.NewReader(log)) {
		if err != nil {
			t.Errorf("the audit log: %v", err)
			continue
		}
		closed := event.Kind == access.EventClosed // by a decision, too
		if event.Kind != access.EventDecision && !closed || event.Decision == nil || event.Incomplete {
			continue // one of our own addresses, or the record says that it lacks something
		}
		n++
		version := event.Decision.Policy
		if loaded[version] == nil {
			if loaded[version], err = loadWritten(dir, version); err != nil {
				t.Errorf("the policy of a recorded decision: %v", err)
				return n
			}
		}
		cfg := loaded[version]
		again := cfg.Policy.Decide(event.Request)
		if got, want := asJSON(again), asJSON(*event.Decision); got != want {
			t.Errorf("%s %s%s was decided\n%s\nand is decided now\n%s", event.Request.Method, event.Request.Host, event.Request.Path, want, got)
		}
		if seen := cfg.Table.Rematch(event.Request); !closed && (seen.Route != event.Request.Route || seen.Fault != event.Request.Fault) {
			t.Errorf("%s %s%s was of route %q (%s) and is of route %q (%s) now", event.Request.Method, event.Request.Host, event.Request.Path,
				event.Request.Route, event.Request.Fault, seen.Route, seen.Fault)
		}
	}
	return n
}

// errorer is the part of testing.T that reports.
type errorer interface {
	Helper()
	Errorf(format string, args ...any)
}

func asJSON(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// loadWritten loads a configuration that a story wrote. It may have gone from
// the disk since.
func loadWritten(dir, version string) (*config.Config, error) {
	text, ok := written.Load(version)
	if !ok {
		return nil, fmt.Errorf("no story wrote a configuration of version %q", version)
	}
	path := filepath.Join(dir, "again-"+version+".yaml")
	if err := os.WriteFile(path, []byte(text.(string)), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	return config.Load(path)
}

// The proof itself can fail: it notices a verdict that the record does not
// explain, and a fact that was left out of a record.
func TestDecidingAgainNoticesDifferences(t *testing.T) {
	dir := t.TempDir()
	text := `version: 1
server: {listen: "127.0.0.1:0"}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes:
  - {id: app, from: "http://app.localhost", to: ["http://127.0.0.1:1"], allow: [{name: office, any_user: true, networks: [10.0.0.0/8]}]}
`
	writeFile(t, dir, "doorward.yaml", text)
	sum := sha256.Sum256([]byte(text))
	cfg, err := loadWritten(dir, hex.EncodeToString(sum[:6]))
	if err != nil {
		t.Fatal(err)
	}
	record := func(change func(*access.Event)) string {
		req := &access.Request{Time: time.Now(), Method: "GET", Scheme: "http", Host: "app.localhost", Path: "/", Route: "app",
			Identity: access.Identity{Provider: "corp", Issuer: "http://127.0.0.1:1", Subject: "alice"}}
		req.Network.IP = netip.MustParseAddr("10.1.2.3")
		d := cfg.Policy.Decide(req)
		e := &access.Event{Kind: access.EventDecision, Request: req, Decision: &d}
		change(e)
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(line) + "\n"
	}
	for name, c := range map[string]struct {
		change func(*access.Event)
		errors int
	}{
		"as it was":         {func(*access.Event) {}, 0},
		"another verdict":   {func(e *access.Event) { e.Decision.Outcome = access.Deny }, 1},
		"a fact is gone":    {func(e *access.Event) { e.Request.Network = access.Network{} }, 1},
		"another route":     {func(e *access.Event) { e.Request.Host = "other.localhost" }, 1},
		"an unknown policy": {func(e *access.Event) { e.Decision.Policy = "0123456789ab" }, 1},
		"admittedly short":  {func(e *access.Event) { e.Incomplete, e.Request.Network = true, access.Network{} }, 0},
	} {
		count := &errorCount{T: t}
		decideAgain(count, dir, record(c.change))
		if count.n != c.errors {
			t.Errorf("%s: %d errors, want %d", name, count.n, c.errors)
		}
	}
}

// errorCount counts errors instead of failing.
type errorCount struct {
	*testing.T
	n int
}

func (c *errorCount) Errorf(string, ...any) { c.n++ }

// events reads an audit log so far; the last line may be in the making.
func events(t testing.TB, path string) []access.Event {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	var list []access.Event
	for e, err := range audit.Read(bytes.NewReader(text)) {
		if err != nil {
			t.Fatalf("the audit log: %v", err)
		}
		list = append(list, *e)
	}
	return list
}
