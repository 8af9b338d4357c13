package admin

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
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
//	/                the same for people
//	/api/v1/…        everything else, for whoever has the token; see api.go
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
	a := &api{opts}
	mux := http.NewServeMux()
	mux.Handle("/healthz", readOnly(a.health))
	mux.Handle("/readyz", readOnly(a.ready))
	mux.Handle("/metrics", readOnly(opts.Metrics.ServeHTTP))
	mux.Handle("/api/v1/status", readOnly(a.status))
	mux.Handle("/{$}", readOnly(a.index))
	mux.Handle("/api/v1/", a.protect(a.endpoints()))
	return a.guard(mux)
}

type api struct{ Options }

// guard lets only those requests in that no other site can have caused.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case !a.Config.answersTo(r.Host):
			a.Log.Warn("admin request under an unknown name", "host", r.Host, "cure", "add the name to server.admin.hosts if it is yours")
			http.Error(w, "The admin listener does not know this host name. Ask by IP address or localhost, or add the name to server.admin.hosts.", http.StatusMisdirectedRequest)
		case fromElsewhere(r):
			http.Error(w, "The admin listener does not answer requests of other sites.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
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

// fromElsewhere reports whether a browser says that another site caused the
// request. Following a link is no such case: the other site does not get to see
// what it leads to.
func fromElsewhere(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
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

//go:embed index.html
var indexText string

//go:embed index.css
var indexStyle string

var (
	indexPage     = template.Must(template.New("index").Parse(indexText))
	contentPolicy = func() string {
		sum := sha256.Sum256([]byte(indexStyle))
		return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
	}()
)

func (a *api) index(w http.ResponseWriter, _ *http.Request) {
	r := a.report()
	details := ""
	if r.Details != nil {
		text, err := json.MarshalIndent(r.Details, "", "  ")
		if err != nil {
			a.Log.Error("the admin status could not be encoded", "error", err)
			text = []byte("not available; see the log")
		}
		details = string(text)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := indexPage.Execute(w, map[string]any{
		"Style": template.CSS(indexStyle), "Version": r.Version, "Ready": r.Ready, "Failing": r.Failing, "Details": details,
	}); err != nil {
		a.Log.Debug("the admin page was not sent in full", "error", err)
	}
}
