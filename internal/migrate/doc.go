// Package migrate answers the question: what would another product's
// configuration be here?
//
// It reads the documented formats of oauth2-proxy, Pomerium, Authelia and Ory
// Oathkeeper and writes a configuration of ours, with a list of everything that
// could not be carried over. The one promise is that nothing becomes looser by
// it unsaid: a rule that cannot be expressed is left out, and a route that is
// left without any lets nobody in. A key that is not understood is listed, not
// skipped.
//
// The package does no I/O. What it reads may come from anywhere, so it is
// bounded, and mistakes are errors with a line.
package migrate
