package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestUpstreamSettingsAreStrict(t *testing.T) {
	minute := access.Duration(time.Minute)
	for want, edit := range map[string]func(*access.Route){
		"routes[0].to[1]":                      func(r *access.Route) { r.To = append(r.To, r.To[0]) },
		"routes[0].upstream.balance":           func(r *access.Route) { r.Upstream.Balance = "random" },
		"routes[0].upstream.try_timeout":       func(r *access.Route) { r.Upstream.TryTimeout = 2 * minute },
		"routes[0].upstream.retry_percent":     func(r *access.Route) { r.Upstream.RetryPercent = 101 },
		"routes[0].upstream.max_connections":   func(r *access.Route) { r.Upstream.MaxConnections = -1 },
		"routes[0].upstream.max_waiting":       func(r *access.Route) { r.Upstream.MaxWaiting = 3 },
		"routes[0].upstream.max_unanswered":    func(r *access.Route) { r.Upstream.MaxUnanswered = -1 },
		"routes[0].upstream.slow_start":        func(r *access.Route) { r.Upstream.SlowStart = 60 * 48 * minute },
		"routes[0].upstream.body_timeout":      func(r *access.Route) { r.Upstream.BodyTimeout = 60 * 48 * minute },
		"routes[0].upstream.eject.for":         func(r *access.Route) { r.Upstream.Eject.For = 60 * 48 * minute },
		"routes[0].upstream.eject.after":       func(r *access.Route) { r.Upstream.Eject.After = -2 },
		"routes[0].upstream.eject.max_percent": func(r *access.Route) { r.Upstream.Eject.MaxPercent = 100 },
		"routes[0].upstream.health.path":       func(r *access.Route) { r.Upstream.Health.Interval = minute },
		"routes[0].upstream.health.interval":   func(r *access.Route) { r.Upstream.Health = access.HealthCheck{Path: "/", Interval: minute / 600} },
		"routes[0].upstream.health.timeout":    func(r *access.Route) { r.Upstream.Health = access.HealthCheck{Path: "/", Timeout: minute} },
		"routes[0].upstream.health.statuses[1]": func(r *access.Route) {
			r.Upstream.Health = access.HealthCheck{Path: "/", Statuses: []int{200, 99}}
		},
		"routes[0].upstream.health.down": func(r *access.Route) { r.Upstream.Health = access.HealthCheck{Path: "/", Down: -1} },
		"routes[0].upstream.health.up":   func(r *access.Route) { r.Upstream.Health = access.HealthCheck{Path: "/", Up: 1001} },
		"routes[0].upstream": func(r *access.Route) {
			r.From, r.To, r.Upstream.Balance = "tcp://app.example:22", []string{"tcp://127.0.0.1:22"}, "session"
		},
	} {
		route := access.Route{ID: "app", From: "https://app.example", To: []string{"http://127.0.0.1:8080"}}
		edit(&route)
		_, faults := NewTable([]access.Route{route})
		if len(faults) != 1 || faults[0].Path != want {
			t.Errorf("%s: %+v", want, faults)
		}
	}
}

// What is sent to the application is a request line: nothing else may get in.
func FuzzHealthPath(f *testing.F) {
	for _, path := range []string{"/", "/healthz", "/healthz?deep=1", "healthz", "/a b", "/a?x=1 HTTP/1.1\r\nHost: evil", "/%2e%2e/", "/a#b", "/?a=%zz"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if path == "" {
			return
		}
		route := access.Route{ID: "app", From: "https://app.example", To: []string{"http://127.0.0.1:8080"},
			Upstream: access.Upstream{Health: access.HealthCheck{Path: path}}}
		table, faults := NewTable([]access.Route{route})
		if len(faults) > 0 {
			return
		}
		for entry := range table.entries {
			u, err := newUpstream(entry, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			req := u.healthRequest(u.targets[0])
			if line := req.URL.RequestURI(); strings.ContainsAny(line, " \r\n#") || line[0] != '/' || strings.Contains(line, "/../") {
				t.Errorf("%q becomes %q", path, line)
			}
		}
	})
}
