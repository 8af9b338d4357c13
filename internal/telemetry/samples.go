package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is the state of one device inventory.
type Source struct {
	// ID is the id from the configuration.
	ID string
	// ObservedAt is when it was last read; zero: never.
	ObservedAt time.Time
	// FailingSince is set while it cannot be read.
	FailingSince time.Time
	// Devices is how many devices it lists; negative: it lists none by its nature.
	Devices int
	// UnknownValues is how many of its values have no meaning here.
	UnknownValues int
}

// AuditLog is what metrics look at in an audit log.
type AuditLog interface {
	Depth() int
	Lost() uint64
	Err() error
}

// Receiver is a system elsewhere that audit events are sent to.
type Receiver struct {
	// Name is from the configuration.
	Name string
	// Waiting are the events that it has not got yet.
	Waiting int64
	// Lag is how long ago the oldest event in transmission happened.
	Lag time.Duration
	// Sent, Rejected and Dropped count what became of events.
	Sent, Rejected, Dropped uint64
	// Failing tells that the last attempt failed.
	Failing bool
}

// Upstream is one address that a route sends requests to. The configuration bounds
// how many there are.
type Upstream struct {
	Address string
	// Used tells that it gets requests while others can be used.
	Used bool
	// Open and Waiting count requests there now, Ejections how often it was left out
	// because it failed visitors.
	Open, Waiting int
	Ejections     uint64
}

// RouteUpstreams counts what became of requests at one route's addresses together.
type RouteUpstreams struct {
	Route string
	// Repeated were sent to a second address, Refused found no room at any.
	Repeated, Refused uint64
	Targets           []Upstream
}

// WatchUpstreams has the addresses that requests are sent to asked at every scrape.
func (m *Metrics) WatchUpstreams(state func() []RouteUpstreams) {
	m.samples.set(func(s *samples) { s.upstreams = state })
}

// Certificate is one that is served.
type Certificate struct {
	// Listener is the key of the listener in the configuration, such as `server`.
	Listener string
	// Name is the host it is for; of several the first.
	Name string
	// NotAfter is when it ends; zero: there is none yet.
	NotAfter time.Time
	// Failing tells that the last attempt to obtain the next one failed.
	Failing bool
}

// Stream is a transmitter of shared signals.
type Stream struct {
	// ID is the id from the configuration.
	ID string
	// Failing is set while something is wrong with it.
	Failing bool
}

// WatchCertificates has the certificates that are served looked at every scrape.
func (m *Metrics) WatchCertificates(state func() []Certificate) {
	m.samples.set(func(s *samples) { s.certificates = state })
}

// WatchSignals has the transmitters of shared signals asked at every scrape.
func (m *Metrics) WatchSignals(state func() []Stream) {
	m.samples.set(func(s *samples) { s.signals = state })
}

// WatchReady has readiness asked at every scrape: nil, or why not, by check.
func (m *Metrics) WatchReady(checks func() map[string]error) {
	m.samples.set(func(s *samples) { s.ready = checks })
}

// WatchSessions has asked at every scrape how many logins are in memory.
func (m *Metrics) WatchSessions(cached func() int) {
	m.samples.set(func(s *samples) { s.sessions = cached })
}

// WatchReceivers has the receivers of audit events asked at every scrape.
func (m *Metrics) WatchReceivers(state func() []Receiver) {
	m.samples.set(func(s *samples) { s.receivers = state })
}

// WatchProviders has the identity providers asked at every scrape: id to nil,
// or to what keeps people from logging in there. Like the other watches it
// replaces what was watched before, as a reload does.
func (m *Metrics) WatchProviders(ready func() map[string]error) {
	m.samples.set(func(s *samples) { s.providers = ready })
}

// WatchSources has the device inventories asked at every scrape.
func (m *Metrics) WatchSources(status func() []Source) {
	m.samples.set(func(s *samples) { s.sources = status })
}

// WatchAudit has the audit log asked at every scrape.
func (m *Metrics) WatchAudit(log AuditLog) {
	m.samples.set(func(s *samples) { s.audit = log })
}

// WatchStore has the store that replicas share asked at every scrape: nil, or why
// it cannot be relied upon.
func (m *Metrics) WatchStore(err func() error) {
	m.samples.set(func(s *samples) { s.store = err })
}

// WatchTracing has tracing asked at every scrape what became of its spans.
func (m *Metrics) WatchTracing(t *Tracing) {
	if t != nil {
		m.samples.set(func(s *samples) { s.spans = t.spans })
	}
}

// samples is a collector of what has a present state only. Nothing is stored
// between scrapes, so nothing can be out of date.
type samples struct {
	now func() time.Time

	mu        sync.Mutex
	providers func() map[string]error
	sources   func() []Source
	audit     AuditLog
	store     func() error
	receivers func() []Receiver
	spans     *spans
	upstreams func() []RouteUpstreams

	certificates func() []Certificate
	signals      func() []Stream
	ready        func() map[string]error
	sessions     func() int
}

func (s *samples) set(f func(*samples)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

var (
	providerUpDesc       = desc("doorward_provider_up", "1 if people can log in with the identity provider, else 0.", "provider")
	sourceAgeDesc        = desc("doorward_device_source_age_seconds", "Time since the device inventory was last read; absent if it never was.", "source")
	sourceFailingDesc    = desc("doorward_device_source_failing", "1 while the device inventory cannot be read, else 0.", "source")
	sourceFailingForDesc = desc("doorward_device_source_failing_seconds", "Time since the device inventory was first found unreadable; 0 while it can be read.", "source")
	sourceDevicesDesc    = desc("doorward_device_source_devices", "Devices that the inventory listed when it was last read.", "source")
	certificateDesc      = desc("doorward_certificate_expiry_timestamp_seconds", "When the certificate that is served for a host ends, in Unix time; of several for one host the first to end. 0 while there is none.", "listener", "name")
	certificateFailDesc  = desc("doorward_certificate_renewal_failing", "1 while the next certificate of a host cannot be obtained, else 0.", "listener", "name")
	signalsFailingDesc   = desc("doorward_signal_stream_failing", "1 while a transmitter of shared signals cannot be reached or breaks its promises, else 0.", "transmitter")
	readyDesc            = desc("doorward_ready", "1 if requests can be served as far as the check tells, else 0; see /readyz.", "check")
	sessionsDesc         = desc("doorward_sessions_in_memory", "Logins that this process keeps in memory, because they were used here lately.")
	sourceUnknownDesc    = desc("doorward_device_source_unknown_values", "Values of the last reading of the device inventory that have no meaning here, so that the facts are unknown.", "source")
	auditQueueDesc       = desc("doorward_audit_queue_length", "Audit events that wait to be written.")
	auditLostDesc        = desc("doorward_audit_lost_total", "Audit events that could not be kept.")
	storeUpDesc          = desc("doorward_store_up", "1 if the store that replicas share can be relied upon, else 0; absent if it is not shared.")
	receiverWaitingDesc  = desc("doorward_audit_sink_backlog", "Audit events on disk that the receiver has not got yet.", "sink")
	receiverLagDesc      = desc("doorward_audit_sink_lag_seconds", "How long ago the oldest audit event in transmission happened; 0 if none is.", "sink")
	receiverEventsDesc   = desc("doorward_audit_sink_events_total", "Audit events that the receiver has (sent), will never take (rejected), or that were deleted to make room (dropped).", "sink", "result")
	receiverFailingDesc  = desc("doorward_audit_sink_failing", "1 while audit events cannot be sent, else 0.", "sink")
	spansDesc            = desc("doorward_trace_spans_total", "Spans of traces that the collector has (sent) or never gets (lost).", "result")
	upstreamUpDesc       = desc("doorward_upstream_up", "1 if the address gets its route's requests, 0 while it is left out or its health checks fail.", "route", "upstream")
	upstreamOpenDesc     = desc("doorward_upstream_requests_open", "Requests that are open at the address, WebSockets and streams included.", "route", "upstream")
	upstreamWaitingDesc  = desc("doorward_upstream_requests_waiting", "Requests that wait for one of the address' max_connections.", "route", "upstream")
	upstreamEjectedDesc  = desc("doorward_upstream_ejections_total", "Times the address was left out for a while because it failed visitors.", "route", "upstream")
	upstreamRepeatDesc   = desc("doorward_upstream_repeated_total", "Requests of the route that were sent to a second address, because the first one had them and did not answer.", "route")
	upstreamRefusedDesc  = desc("doorward_upstream_busy_total", "Requests of the route that none of its addresses had room for.", "route")
	auditFailingDesc     = desc("doorward_audit_failing", "1 while audit events cannot be written, else 0.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (s *samples) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{providerUpDesc, sourceAgeDesc, sourceFailingDesc, sourceFailingForDesc, sourceUnknownDesc, auditQueueDesc, auditLostDesc, auditFailingDesc, storeUpDesc,
		receiverWaitingDesc, receiverLagDesc, receiverEventsDesc, receiverFailingDesc,
		upstreamUpDesc, upstreamOpenDesc, upstreamWaitingDesc, upstreamEjectedDesc, upstreamRepeatDesc, upstreamRefusedDesc, spansDesc,
		sourceDevicesDesc, certificateDesc, certificateFailDesc, signalsFailingDesc, readyDesc, sessionsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *samples) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	providers, sources, audit, store, receivers, spans, upstreams := s.providers, s.sources, s.audit, s.store, s.receivers, s.spans, s.upstreams
	certificates, signals, ready, sessions := s.certificates, s.signals, s.ready, s.sessions
	s.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if providers != nil {
		for id, err := range providers() {
			gauge(providerUpDesc, oneIf(err == nil), id)
		}
	}
	if sources != nil {
		for _, source := range sources() {
			if !source.ObservedAt.IsZero() {
				gauge(sourceAgeDesc, max(0, s.now().Sub(source.ObservedAt).Seconds()), source.ID)
			}
			failing := !source.FailingSince.IsZero()
			gauge(sourceFailingDesc, oneIf(failing), source.ID)
			var failingFor time.Duration
			if failing {
				failingFor = max(0, s.now().Sub(source.FailingSince))
			}
			gauge(sourceFailingForDesc, failingFor.Seconds(), source.ID)
			if source.Devices >= 0 {
				gauge(sourceDevicesDesc, float64(source.Devices), source.ID)
			}
			gauge(sourceUnknownDesc, float64(source.UnknownValues), source.ID)
		}
	}
	if certificates != nil {
		for _, c := range firstToEnd(certificates()) {
			ends := 0.0
			if !c.NotAfter.IsZero() {
				ends = float64(c.NotAfter.Unix())
			}
			gauge(certificateDesc, ends, c.Listener, c.Name)
			gauge(certificateFailDesc, oneIf(c.Failing), c.Listener, c.Name)
		}
	}
	if signals != nil {
		for _, stream := range signals() {
			gauge(signalsFailingDesc, oneIf(stream.Failing), stream.ID)
		}
	}
	if ready != nil {
		for check, err := range ready() {
			gauge(readyDesc, oneIf(err == nil), check)
		}
	}
	if sessions != nil {
		gauge(sessionsDesc, float64(sessions()))
	}
	if store != nil {
		gauge(storeUpDesc, oneIf(store() == nil))
	}
	if audit != nil {
		gauge(auditQueueDesc, float64(audit.Depth()))
		gauge(auditFailingDesc, oneIf(audit.Err() != nil))
		ch <- prometheus.MustNewConstMetric(auditLostDesc, prometheus.CounterValue, float64(audit.Lost()))
	}
	if spans != nil {
		for result, n := range map[string]uint64{"sent": spans.sent.Load(), "lost": spans.lost.Load()} {
			ch <- prometheus.MustNewConstMetric(spansDesc, prometheus.CounterValue, float64(n), result)
		}
	}
	if upstreams != nil {
		s.collectUpstreams(ch, upstreams())
	}
	if receivers != nil {
		for _, r := range receivers() {
			gauge(receiverWaitingDesc, float64(r.Waiting), r.Name)
			gauge(receiverLagDesc, r.Lag.Seconds(), r.Name)
			gauge(receiverFailingDesc, oneIf(r.Failing), r.Name)
			for result, n := range map[string]uint64{"sent": r.Sent, "rejected": r.Rejected, "dropped": r.Dropped} {
				ch <- prometheus.MustNewConstMetric(receiverEventsDesc, prometheus.CounterValue, float64(n), r.Name, result)
			}
		}
	}
}

func (s *samples) collectUpstreams(ch chan<- prometheus.Metric, routes []RouteUpstreams) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, r := range routes {
		send(upstreamRepeatDesc, prometheus.CounterValue, float64(r.Repeated), r.Route)
		send(upstreamRefusedDesc, prometheus.CounterValue, float64(r.Refused), r.Route)
		for _, t := range r.Targets {
			send(upstreamUpDesc, prometheus.GaugeValue, oneIf(t.Used), r.Route, t.Address)
			send(upstreamOpenDesc, prometheus.GaugeValue, float64(t.Open), r.Route, t.Address)
			send(upstreamWaitingDesc, prometheus.GaugeValue, float64(t.Waiting), r.Route, t.Address)
			send(upstreamEjectedDesc, prometheus.CounterValue, float64(t.Ejections), r.Route, t.Address)
		}
	}
}

// firstToEnd keeps one certificate for each name of a listener: two lines of one
// series would spoil the scrape.
func firstToEnd(list []Certificate) map[[2]string]Certificate {
	first := map[[2]string]Certificate{}
	for _, c := range list {
		key := [2]string{c.Listener, c.Name}
		if have, ok := first[key]; ok {
			c.Failing = c.Failing || have.Failing
			if have.NotAfter.Before(c.NotAfter) {
				c.NotAfter = have.NotAfter
			}
		}
		first[key] = c
	}
	return first
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
