// Package devicecheck answers the question: on what?
//
// It tells which device a request comes from and what its inventory says about
// it. A device identifies itself by a claim of the visitor's ID token or by a
// client certificate that chains to the device CA; inventories are read ahead
// of need into memory, and so is what revokes certificates. Inspect performs no
// input or output, except that the first request with a certificate waits, for
// three seconds at most, until somebody has said whether it was revoked.
//
// Every fact is yes, no or unknown, and carries its source and its age.
// Nothing here turns unknown into no: a device that is missing from an
// inventory is "not known" only while that inventory can be read. What the
// facts are worth (profiles, maximum age, outages) is decided in package authz,
// from access.Device alone, so that a decision can be replayed.
//
// The life of an inventory is told by source.go, with one file per kind of
// source beside it, all of which kinds.go lists; what those share that are asked
// over HTTP is in pull.go, pages.go, token.go and oddities.go. The life of a
// request is told by inspect.go.
package devicecheck
