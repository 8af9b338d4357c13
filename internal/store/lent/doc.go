// Package lent answers the question: how does a process use a store that another
// one keeps?
//
// One local file has one process that may open it. While a new process takes over
// from an old one, the old one goes on with what it has open, and needs the store
// that the new one keeps: it borrows it over a pipe. Both are the same program, or
// versions of it, and trust each other.
package lent
