// Package history answers the question: what would have happened?
//
// It reads an audit log as a whole, in bounded memory and on all processors,
// and asks a configuration about every decision in it. Replay tells which
// verdicts a candidate would change, Suggest which rights nobody used, WhoCan
// who of those who were seen could open an address.
//
// What a record lacks is never guessed: where the answer depends on it, the
// request is counted as unknown. Nothing in a log is fatal, and nothing is
// dropped in silence: what is no decision is counted, and what cannot be read is
// named by file and line.
package history
