// Package lane answers the question: what is the least that a plain request over
// plaintext HTTP/1.1 may cost, without anybody but net/http saying what it means?
//
// Server stands before an http.Server and has a fast lane for requests that come whole
// and alone, GET or HEAD, without a body and without a word about the connection or the
// framing. One goroutine reads, answers and waits for the next, with one write for a
// small answer, and while it waits it holds no buffer.
//
// The lane has no parser of its own. It looks at bytes only to tell whether they are
// one complete head of visible characters in whole lines (plain.go); what the head
// says, http.ReadRequest tells it, which is what http.Server reads requests with, and
// the checks that http.Server adds behind that are made here as well. Whatever is not
// plain, doubtful or wrong takes its connection to the http.Server for good, with
// every byte that was read, and is served or refused there as if the lane did not
// exist. Two readers of one request cannot disagree, because there is one.
//
// What a handler finds is what http.Server would have given it (answer.go follows
// its rules for answers), except that nothing in the lane can be hijacked.
package lane
