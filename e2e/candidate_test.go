package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// The next configuration decides on live requests without a visitor noticing:
// what it would change is in the audit log and counted, and a mistake in it
// switches it off and nothing else.
func TestCandidateConfiguration(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>well</p>") })
	addr := freeAddress(t)
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	s := startSite(t, addr, "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		fmt.Sprintf("[{id: app, from: %q, to: [%s], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}]", base, app))
	v := newVisitor(t)
	program := http.Header{"Accept": {"application/json"}}
	count := func(line string) bool {
		return strings.Contains(v.once("GET", "http://"+s.admin+"/metrics", nil, nil).body, line)
	}

	live := readFile(t, s.config)
	next := strings.Replace(live, `paths: ["/**"]`, `paths: ["/health"]`, 1)
	next = strings.Replace(next, "public:", "allow: [{name: people, any_user: true}], public:", 1)
	replace(t, filepath.Join(s.dir, "next.yaml"), next)
	replace(t, s.config, live+"shadow: next.yaml\n")
	s.waitFor("candidate loaded", 1)
	s.waitFor("configuration loaded", 1)

	v.once("GET", base+"/plans", program, nil).says(t, 200, "well")
	v.once("GET", base+"/health", program, nil).says(t, 200, "well")
	e := s.waitForRequest("/plans")
	if e.Candidate == nil || e.Candidate.Route != "app" || e.Candidate.Decision.Outcome != access.Challenge || e.Decision.Outcome != access.Allow {
		t.Errorf("the record: %+v", e)
	}
	if e := s.waitForRequest("/health"); e.Candidate != nil {
		t.Errorf("both agree, yet the record has %+v", e.Candidate)
	}
	eventually(t, "the count", func() bool {
		return count(`doorward_candidate_differences_total{candidate="challenge",outcome="allow"} 1`)
	})

	// A mistake in it concerns nobody.
	replace(t, filepath.Join(s.dir, "next.yaml"), strings.Replace(next, "any_user", "any_one", 1))
	s.waitFor("the candidate was not loaded", 1)
	s.waitFor("any_one", 1)
	v.once("GET", base+"/later", program, nil).says(t, 200, "well")
	if e := s.waitForRequest("/later"); e.Candidate != nil {
		t.Errorf("a candidate with a mistake decides: %+v", e.Candidate)
	}
	if !count(`doorward_candidate_info{version="none"} 0`) || !count(`doorward_config_reload_total{result="failed"} 0`) {
		t.Error("the metrics do not tell a broken candidate from a broken configuration")
	}

	// It is watched by itself, and put right it decides again.
	replace(t, filepath.Join(s.dir, "next.yaml"), next)
	s.waitFor("candidate loaded", 2)
	v.once("GET", base+"/last", program, nil).says(t, 200, "well")
	if e := s.waitForRequest("/last"); e.Candidate == nil {
		t.Error("the candidate was mended and does not decide")
	}
	replace(t, s.config, live)
	s.waitFor("candidate removed", 1)
}
