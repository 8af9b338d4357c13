// Package access answers the question: what are we talking about?
//
// It holds the nouns every other package shares: Request, Identity, Device,
// Session, Route, Rule, Decision, Reason and Event. It imports the standard
// library only and performs no input or output, so that a Request read back
// from an audit log is the same value the proxy decided on.
//
// Every zero value refuses: a zero Identity is Nobody, a zero Device is
// Unknown in every respect, a zero Decision is Deny.
package access
