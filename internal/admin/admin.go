package admin

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Options give the handler what it shows.
type Options struct {
	// Config is the section of the configuration file.
	Config Config
	// Checks tells what keeps the process from being ready: the name of each
	// check to nil or the reason. It is called for every /readyz and must not
	// wait for anything. Nil: always ready.
	Checks func() map[string]error
	// Metrics serves /metrics. Nil: 404.
	Metrics http.Handler
	// Version is the version of the program.
	Version string
	// Status returns what /api/v1/status shows under "details", encoded as
	// JSON. May be nil.
	Status func() any
	// Token returns the secret that opens the API at this moment; empty, it opens
	// for nobody. Default: Config.Token.
	Token func() access.Secret
	// Door knows whom the route to the listener has let in. Nil: no route leads
	// here.
	Door Door
	// FormKey is a secret of at least 32 bytes, the same for all replicas, by which
	// the forms of the pages are told from those of others. Default: a random one.
	FormKey []byte
	// Tally has the numbers of the overview. Nil: there are none.
	Tally *Tally
	// Instance is the state of the process. Nil: its pages are not there.
	Instance Instance
	// Activity is what operators did. Nil: its page is not there.
	Activity Activity
	// Decisions are what the API shows and explains of the policy. Nil: 404.
	Decisions Decisions
	// Sessions are the logins the API shows and ends. Nil: 404.
	Sessions Sessions
	// Devices are the inventories the API shows. Nil: 404.
	Devices Devices
	// Revocations end access. Nil: 404.
	Revocations Revocations
	// Emit takes the audit events of what was done. Default: nowhere.
	Emit func(*access.Event)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log receives what goes wrong. Default: nowhere.
	Log *slog.Logger
}

// New returns the handler of the admin listener:
//
//	/healthz         200 as long as the process lives
//	/readyz          200, or 503 with what fails
//	/metrics         for Prometheus
//	/api/v1/status   what is going on, as JSON
//	/api/v1/…        everything else for programs; see api.go
//	/                the same for people; see ui.go
//	/login           for people who have the token
func New(opts Options) http.Handler {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Checks == nil {
		opts.Checks = func() map[string]error { return nil }
	}
	if opts.Metrics == nil {
		opts.Metrics = http.NotFoundHandler()
	}
	if opts.Token == nil {
		opts.Token = func() access.Secret { return opts.Config.Token }
	}
	if opts.Emit == nil {
		opts.Emit = func(*access.Event) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if len(opts.FormKey) < 32 {
		opts.FormKey = make([]byte, 32)
		rand.Read(opts.FormKey) // never fails
	}
	a := &api{Options: opts}
	mux := http.NewServeMux()
	mux.Handle("/healthz", readOnly(a.health))
	mux.Handle("/readyz", readOnly(a.ready))
	mux.Handle("/metrics", readOnly(opts.Metrics.ServeHTTP))
	mux.Handle("/api/v1/status", readOnly(a.status))
	mux.Handle("/api/v1/", a.protect(a.endpoints()))
	mux.HandleFunc("GET /login", a.login)
	mux.HandleFunc("POST /login", a.login)
	mux.Handle("POST /logout", a.forPeople(a.logout))
	for _, p := range a.pages() {
		mux.Handle(p.pattern, a.forPeople(p.serve))
	}
	return a.guard(mux)
}

type api struct {
	Options
	glass breakGlass
}

// readOnly is for what is shown without a token.
func readOnly(show http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "This address is read-only.", http.StatusMethodNotAllowed)
			return
		}
		show(w, r)
	})
}

func (a *api) health(w http.ResponseWriter, _ *http.Request) {
	a.reply(w, http.StatusOK, map[string]string{"status": "alive"})
}

// failure is one check that does not pass.
type failure struct {
	Check string `json:"check"`
	Error string `json:"error"`
}

// failing lists what keeps the process from being ready, sorted.
func (a *api) failing() []failure {
	var list []failure
	checks := a.Checks()
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if err := checks[name]; err != nil {
			list = append(list, failure{name, err.Error()})
		}
	}
	return list
}

func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	type answer struct {
		Status  string    `json:"status"`
		Failing []failure `json:"failing,omitempty"`
	}
	if failing := a.failing(); len(failing) > 0 {
		a.reply(w, http.StatusServiceUnavailable, answer{"not ready", failing})
		return
	}
	a.reply(w, http.StatusOK, answer{Status: "ready"})
}

// report is the answer of /api/v1/status.
type report struct {
	Version string    `json:"version"`
	Ready   bool      `json:"ready"`
	Failing []failure `json:"failing,omitempty"`
	Details any       `json:"details,omitempty"`
}

func (a *api) report() report {
	failing := a.failing()
	r := report{Version: a.Version, Ready: len(failing) == 0, Failing: failing}
	if a.Options.Status != nil {
		r.Details = a.Options.Status()
	}
	return r
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	a.reply(w, http.StatusOK, a.report())
}

func (a *api) reply(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		a.Log.Error("an admin answer could not be encoded", "error", err)
		http.Error(w, "The answer could not be encoded; see the log.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(access.HideTokensIn(body), '\n'))
}
