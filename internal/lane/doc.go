// Package lane answers the question: what is the least that a plain request over
// plaintext HTTP/1.1 may cost, without meaning anything else than it does to net/http?
//
// Server stands before an http.Server and has a fast lane for requests that come whole
// and alone, GET or HEAD, without a body and without a word about the connection or the
// framing. One goroutine reads, answers and waits for the next, with one write for a
// small answer, and while it waits it holds no buffer.
//
// The lane takes bytes for a request only if they are one complete head of visible
// characters in whole lines, which says nothing about where the request ends
// (plain.go). Then there is not much to read, and fuzzers hold what is read to what
// http.Server reads. Whatever is not plain, doubtful or wrong takes its connection to
// the http.Server for good, with every byte that was read, and is served or refused
// there as if the lane did not exist. Two readers cannot disagree about where a request
// ends, because one of them does not know how to find out.
//
// What a handler finds is what http.Server would have given it (answer.go follows
// its rules for answers), except that nothing in the lane can be hijacked.
package lane
