// Package h1 answers the question: how does one request reach an application
// that speaks HTTP/1.1 in plaintext, and its answer come back, at the least cost?
//
// Client is an http.RoundTripper made for forwarding. The goroutine that asks
// also writes the request and reads the answer; only a request with a body has a
// second one, for as long as the body lasts. A request without a body is one
// write, a small answer one read.
//
// What comes back is read strictly (RFC 9112). Whatever two readers might take
// for two different answers, above all where it ends, is an error here, and so is
// what RFC 9110 and 9112 do not permit; what is accepted net/http reads the same
// way. A connection is used again only if both sides have said all they had to
// say and not a byte more.
package h1
