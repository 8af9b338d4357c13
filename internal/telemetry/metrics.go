package telemetry

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/doorward/doorward/internal/access"
)

// Options give Metrics what it cannot know. All have defaults.
type Options struct {
	// Version is the version of the program, shown by doorward_build_info.
	Version string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Metrics counts what happens and serves it to Prometheus, from a registry of
// its own. Its methods may be called from many goroutines.
type Metrics struct {
	registry *prometheus.Registry
	now      func() time.Time

	requests       *prometheus.CounterVec
	responses      *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	decide         prometheus.Histogram
	upstream       *prometheus.HistogramVec
	upstreamErrors *prometheus.CounterVec
	closed         *prometheus.CounterVec
	shadow         *prometheus.CounterVec
	differences    *prometheus.CounterVec
	candidate      *prometheus.GaugeVec
	inFlight       *prometheus.GaugeVec
	logins         *prometheus.CounterVec
	events         *prometheus.CounterVec
	reloads        *prometheus.CounterVec
	reloaded       prometheus.Gauge
	loadedLast     prometheus.Gauge
	configInfo     *prometheus.GaugeVec

	observed observed

	samples samples
	loading sync.Mutex
	names   atomic.Pointer[names]
	begun   map[access.Door]flight
}

// flight counts the requests in flight of a door.
type flight struct{ inc, dec func() }

// names are the values the labels route and provider may take, and what is counted
// of each route.
type names struct {
	providers []string           // sorted
	series    map[string]*series // by route, none and other among them
}

// newNames returns the names of a configuration.
func newNames(routes, providers []string) *names {
	n := &names{slices.Sorted(slices.Values(providers)), make(map[string]*series, len(routes)+2)}
	for _, route := range append([]string{none, other}, routes...) {
		n.series[route] = &series{route: route}
	}
	return n
}

// series are those of the metrics of one route that every request counts in, found
// once and kept: finding them by their labels is dearer than to count, and takes a
// lock that all cores share. Those that nothing was counted in yet are nil.
type series struct {
	route     string
	duration  atomic.Pointer[prometheus.Observer]
	upstream  atomic.Pointer[prometheus.Observer]
	allowed   atomic.Pointer[prometheus.Counter] // by the standalone door
	responses [6]atomic.Pointer[prometheus.Counter]
}

func (s *series) observe(kept *atomic.Pointer[prometheus.Observer], of *prometheus.HistogramVec, seconds float64) {
	found := kept.Load()
	if found == nil {
		observer := of.WithLabelValues(s.route)
		found = &observer
		kept.Store(found)
	}
	(*found).Observe(seconds)
}

func (s *series) count(kept *atomic.Pointer[prometheus.Counter], of *prometheus.CounterVec, labels ...string) {
	found := kept.Load()
	if found == nil {
		counter := of.WithLabelValues(labels...)
		found = &counter
		kept.Store(found)
	}
	(*found).Inc()
}

// Values of a label that names nothing, or something the configuration lacks.
const (
	none  = "none"
	other = "other"
)

// New returns metrics with their own registry.
func New(opts Options) *Metrics {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		now:      opts.Now,
		requests: counter("doorward_requests_total",
			"Requests by route, verdict, reason and the door they came in by.", "route", "outcome", "reason", "door"),
		responses: counter("doorward_responses_total",
			"Responses by route and class of the status code (2xx, 3xx ...).", "route", "class"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "doorward_request_duration_seconds",
			Help:    "Time from the first byte of a request to the end of its response, by route.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"route"}),
		decide: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "doorward_decide_duration_seconds",
			Help:    "Time Doorward itself takes for a request: gathering facts and deciding.",
			Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, .001, .0025, .005, .01, .05, .25, 1, 5}}),
		upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "doorward_upstream_wait_seconds",
			Help:    "Time an upstream takes until the headers of its answer are there, by route; all attempts together.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"route"}),
		upstreamErrors: counter("doorward_upstream_errors_total",
			"Allowed requests the upstream did not answer, by route and reason.", "route", "reason"),
		closed: counter("doorward_closed_total",
			"Open requests (connections, streams, transfers) ended because they no longer passed, by route and reason.", "route", "reason"),
		shadow: counter("doorward_shadow_decisions_total",
			"Verdicts that rules in report mode would have changed.", "route", "rule", "outcome"),
		differences: counter("doorward_candidate_differences_total",
			"Requests on which the candidate configuration would have decided differently, by both outcomes. Equal ones differ in what is missing.", "outcome", "candidate"),
		candidate: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "doorward_candidate_info",
			Help: "1 while a candidate configuration is decided with, by version; 0 while it cannot be loaded."}, []string{"version"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "doorward_requests_in_flight",
			Help: "Requests and open connections being served, by door."}, []string{"door"}),
		logins: counter("doorward_logins_total",
			"Logins by identity provider and result (ok, or the reason of the failure).", "provider", "result"),
		events: counter("doorward_events_total",
			"Events that are no requests, by kind (login, logout, session, config, signal, admin, closed, audit) and reason.", "kind", "reason"),
		reloads: counter("doorward_config_reload_total",
			"Times the configuration was loaded, by result (ok, failed).", "result"),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{Name: "doorward_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was loaded, in Unix time."}),
		loadedLast: prometheus.NewGauge(prometheus.GaugeOpts{Name: "doorward_config_last_reload_successful",
			Help: "1 if the configuration that is in the file was loaded, 0 if it was refused and the one before serves on."}),
		configInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "doorward_config_info",
			Help: "Always 1; the label names the version of the configuration in use."}, []string{"version"}),
	}
	m.observed = newObserved()
	m.samples.now = opts.Now
	m.names.Store(newNames(nil, nil))
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "doorward_build_info",
		Help: "Always 1; the label names the version of the program.", ConstLabels: prometheus.Labels{"version": opts.Version}})
	build.Set(1)
	m.registry.MustRegister(m.observed.collectors()...)
	m.registry.MustRegister(m.requests, m.responses, m.duration, m.decide, m.upstream, m.upstreamErrors, m.events, m.loadedLast, m.closed, m.shadow, m.differences, m.candidate, m.inFlight, m.logins,
		m.reloads, m.reloaded, m.configInfo, build, &m.samples,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// An alert on a counter needs its zero: without it the first failure is
	// no increase.
	m.reloads.WithLabelValues("ok")
	m.reloads.WithLabelValues("failed")
	m.begun = map[access.Door]flight{}
	for _, door := range doors {
		gauge := m.inFlight.WithLabelValues(string(door))
		m.begun[door] = flight{gauge.Inc, gauge.Dec}
	}
	return m
}

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Begin counts a request as in flight until the returned function is called,
// once.
func (m *Metrics) Begin(door access.Door) (end func()) {
	if f, known := m.begun[door]; known {
		f.inc()
		return f.dec
	}
	gauge := m.inFlight.WithLabelValues(doorLabel(door))
	gauge.Inc()
	return gauge.Dec
}

// Event counts one event.
func (m *Metrics) Event(e *access.Event) {
	if e.Kind != access.EventDecision {
		m.events.WithLabelValues(kindLabel(e.Kind), reasonLabel(e.Reason)).Inc()
	}
	switch e.Kind {
	case access.EventDecision:
		m.decision(e)
	case access.EventLogin:
		m.login(e)
	case access.EventClosed:
		route := ""
		if e.Request != nil {
			route = e.Request.Route
		}
		m.closed.WithLabelValues(m.route(route), reasonLabel(e.Reason)).Inc()
	}
}

func (m *Metrics) decision(e *access.Event) {
	decision, request := e.Decision, e.Request
	if decision == nil {
		decision = &access.Decision{} // denies
	}
	if request == nil {
		request = &access.Request{}
	}
	s := m.names.Load().of(request.Route)
	route, final := s.route, finalReason(e)
	if decision.Outcome == access.Allow && final == access.Allowed && request.Door == access.Standalone {
		s.count(&s.allowed, m.requests, route, access.Allow.String(), string(access.Allowed), string(access.Standalone))
	} else {
		m.requests.WithLabelValues(route, decision.Outcome.String(), reasonLabel(final), doorLabel(request.Door)).Inc()
	}
	c := classOf(e.Response.Status)
	s.count(&s.responses[c], m.responses, route, classes[c])
	s.observe(&s.duration, m.duration, e.Response.Duration.Seconds())
	m.decide.Observe(e.Response.Decide.Seconds())
	if e.Response.Upstream != "" && request.Door != access.Tunnel {
		s.observe(&s.upstream, m.upstream, e.Response.Wait.Seconds())
	}
	if slices.Contains(upstreamReasons, e.Response.Reason) {
		m.upstreamErrors.WithLabelValues(route, string(e.Response.Reason)).Inc()
	}
	if e.Candidate != nil {
		m.differences.WithLabelValues(decision.Outcome.String(), e.Candidate.Decision.Outcome.String()).Inc()
	}
	for _, s := range decision.Shadow { // rule names come from the policy, so the configuration bounds them
		m.shadow.WithLabelValues(route, s.Rule, s.Outcome.String()).Inc()
	}
}

// upstreamReasons are why an upstream did not answer.
var upstreamReasons = []access.Reason{access.UpstreamUnreachable, access.UpstreamTimeout, access.UpstreamTLSFailed, access.UpstreamIdentityWrong, access.UpstreamBroken,
	access.UpstreamBusy}

// Candidate tells that a candidate configuration is decided with, that it could
// not be loaded, or, with neither a version nor an error, that there is none.
func (m *Metrics) Candidate(version string, err error) {
	m.candidate.Reset()
	switch {
	case err != nil:
		m.candidate.WithLabelValues(none).Set(0)
	case version != "":
		m.candidate.WithLabelValues(version).Set(1)
		for _, outcome := range outcomes {
			for _, would := range outcomes {
				m.differences.WithLabelValues(outcome.String(), would.String())
			}
		}
	}
}

var outcomes = []access.Outcome{access.Deny, access.Challenge, access.Allow}

// login takes the provider from the actor, PROVIDER:SUB; for a login that
// failed before anybody was known that is "PROVIDER:" or nothing.
func (m *Metrics) login(e *access.Event) {
	provider, _, _ := strings.Cut(e.Actor, ":")
	result := "ok"
	if e.Reason != "" && e.Reason != access.Allowed {
		result = reasonLabel(e.Reason)
	}
	m.logins.WithLabelValues(known(m.names.Load().providers, provider), result).Inc()
}

// Loaded tells that a configuration went live: its version, and the ids of its
// routes and providers. They are the only values the labels of that name can
// take; series of routes that are gone end.
func (m *Metrics) Loaded(version string, routes, providers []string) {
	m.loading.Lock()
	defer m.loading.Unlock()
	live := newNames(routes, providers)
	before := m.names.Swap(live)
	for route := range before.series {
		if live.series[route] == nil {
			m.forget(prometheus.Labels{"route": route})
		}
	}
	for _, provider := range live.providers {
		m.logins.WithLabelValues(provider, "ok")
		m.observed.providerErrors.WithLabelValues(provider)
	}
	m.configInfo.Reset()
	m.configInfo.WithLabelValues(version).Set(1)
	m.reloads.WithLabelValues("ok").Inc()
	m.loadedLast.Set(1)
	m.reloaded.Set(float64(m.now().UnixMilli()) / 1000)
}

func (m *Metrics) forget(labels prometheus.Labels) {
	for _, vec := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.requests, m.responses, m.duration, m.upstream, m.upstreamErrors, m.shadow} {
		vec.DeletePartialMatch(labels)
	}
}

// LoadFailed counts a configuration that was refused; the one before stays.
func (m *Metrics) LoadFailed() {
	m.reloads.WithLabelValues("failed").Inc()
	m.loadedLast.Set(0)
}

func (m *Metrics) route(id string) string { return m.names.Load().of(id).route }

// of returns the series of a route; what the configuration does not name is other.
func (n *names) of(id string) *series {
	if id == "" {
		id = none
	}
	if s := n.series[id]; s != nil {
		return s
	}
	return n.series[other]
}

// known bounds a label: what the configuration does not name is "other".
func known(list []string, id string) string {
	if id == "" {
		return none
	}
	if _, ok := slices.BinarySearch(list, id); ok {
		return id
	}
	return other
}

var doors = []access.Door{access.Standalone, access.ForwardAuth, access.ExtAuthz, access.SPOE, access.Tunnel}

func doorLabel(d access.Door) string {
	switch {
	case d == "":
		return none
	case slices.Contains(doors, d):
		return string(d)
	}
	return other
}

var kinds = []access.EventKind{access.EventLogin, access.EventLogout, access.EventSession, access.EventConfig, access.EventSignal,
	access.EventAdmin, access.EventClosed, access.EventAudit}

func kindLabel(k access.EventKind) string {
	if slices.Contains(kinds, k) {
		return string(k)
	}
	return other
}

func reasonLabel(r access.Reason) string {
	switch {
	case r == "":
		return none
	case r.Known():
		return string(r)
	}
	return other
}

// finalReason is why the response is what it is: what happened after the
// decision counts more than the decision.
func finalReason(e *access.Event) access.Reason {
	if e.Response.Reason != "" {
		return e.Response.Reason
	}
	if e.Decision != nil {
		return e.Decision.Reason
	}
	return e.Reason
}

// classes are the classes of status codes, the first for what is none.
var classes = [6]string{none, "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status int) int {
	if status < 100 || status > 599 {
		return 0
	}
	return status / 100
}
