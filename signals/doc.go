// Package signals answers the question: what has changed elsewhere?
//
// It receives security event tokens (RFC 8417) from transmitters of the OpenID
// Shared Signals Framework 1.0: an identity provider that ends a session, a
// device management that finds a laptop out of compliance. Events of CAEP 1.0
// and RISC 1.0 are verified, brought in order, and turned into what they mean
// here: logins end, an assurance sinks, a device counts as not compliant.
//
// Nothing that arrives here opens anything. An event can end, lower or narrow;
// what it says in a visitor's favour only takes back what an earlier event of
// the same transmitter said.
//
// One step is one file: token.go verifies, subject.go and event.go read, act.go
// carries out. push.go (RFC 8935) and poll.go (RFC 8936) are the two ways in;
// stream.go keeps the stream at the transmitter alive. reports.go remembers
// what was said of devices, for package devicecheck.
package signals
