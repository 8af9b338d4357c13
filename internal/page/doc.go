// Package page answers the question: what does a visitor see?
//
// It renders the few pages Doorward shows itself (refusals, the choice of an
// identity provider, logging out) and the problem documents programs get
// instead. It is the only place that writes an error response. Every text comes
// from access.Reason or from a template here; values that came from outside are
// escaped, and links lead to http, https or relative addresses only.
//
// Pages are plain HTML with one inline style sheet: no script, no external
// asset, nothing to load and nothing to break.
package page
