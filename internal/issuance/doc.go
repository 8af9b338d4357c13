// Package issuance answers the question: how does the listener get certificates
// that nobody puts there?
//
// An Issuer keeps one certificate for each of its hosts. It orders them from an
// authority by ACME (RFC 8555), answers the authority's question on the main
// listener (TLS-ALPN-01, RFC 8737), renews them when a third of their life is
// left, and keeps them in the store, sealed. Replicas that share a store share
// the certificates: one of them orders, the others wait and take what it got.
// Which of them the authority asks does not matter.
package issuance
