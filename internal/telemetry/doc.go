// Package telemetry answers the question: how is it doing?
//
// Metrics counts what access events tell and samples what only has a present
// state, for Prometheus. Every label takes its values from a list that the
// configuration bounds, never from a request. NewLogger and LogEvent make the
// operator's log, which is not the audit log: it may be sampled, shipped and
// thrown away, and it holds no query, claim or secret.
package telemetry
