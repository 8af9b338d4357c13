package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// observed is how long others take that Doorward asks, and how often they fail.
type observed struct {
	store, provider             *prometheus.HistogramVec
	storeErrors, providerErrors *prometheus.CounterVec
}

// storeOperations are the values of the label operation.
var storeOperations = []string{"get", "put", "delete"}

func newObserved() observed {
	o := observed{
		store: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "doorward_store_operation_duration_seconds",
			Help:    "Time the store of sessions takes for an operation; what is in memory is not asked for.",
			Buckets: []float64{100e-6, 250e-6, 500e-6, .001, .0025, .005, .01, .025, .1, .5, 1, 5}}, []string{"operation"}),
		storeErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "doorward_store_errors_total",
			Help: "Operations that the store of sessions could not do, by operation."}, []string{"operation"}),
		provider: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "doorward_provider_request_duration_seconds",
			Help:    "Time an identity provider takes to answer Doorward itself: metadata, keys, tokens, introspection.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"provider"}),
		providerErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "doorward_provider_errors_total",
			Help: "Requests of Doorward that an identity provider did not answer or answered with a status of 5xx."}, []string{"provider"}),
	}
	for _, operation := range storeOperations {
		o.store.WithLabelValues(operation)
		o.storeErrors.WithLabelValues(operation)
	}
	return o
}

func (o *observed) collectors() []prometheus.Collector {
	return []prometheus.Collector{o.store, o.storeErrors, o.provider, o.providerErrors}
}

// StoreAsked counts one operation of the store: get, put or delete.
func (m *Metrics) StoreAsked(operation string, took time.Duration, failed bool) {
	m.observed.store.WithLabelValues(operation).Observe(took.Seconds())
	if failed {
		m.observed.storeErrors.WithLabelValues(operation).Inc()
	}
}

// ProviderAsked counts one request to an identity provider.
func (m *Metrics) ProviderAsked(provider string, took time.Duration, failed bool) {
	label := known(m.names.Load().providers, provider)
	m.observed.provider.WithLabelValues(label).Observe(took.Seconds())
	if failed {
		m.observed.providerErrors.WithLabelValues(label).Inc()
	}
}
