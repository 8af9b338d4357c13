// Package proxy answers the question: which road does a request take?
//
// A request passes nine stations, one file each: receive, match, identify,
// inspect, decide, challenge, prepare, forward, record. Everything slow or
// fallible is gathered as a fact before the decision; nothing is prepared for
// the upstream before the decision allows it; and every request, whatever
// becomes of it, leaves exactly one audit event.
//
// Package proxy knows the other packages only by the small interfaces in
// snapshot.go. The configuration in force is one immutable Snapshot; a request
// uses the one it started with until it ends.
package proxy
