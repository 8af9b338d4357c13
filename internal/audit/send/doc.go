// Package send answers the question: how does a batch of audit events reach
// another system?
//
// A Sender hands over one batch at a time and returns when the receiver has said
// that it has it, so that whoever keeps the events may forget them. It keeps
// nothing itself. Package audit keeps events until then, tries again, and puts
// aside what a receiver will never take.
package send
