// Package audit answers the question: what happened, provably?
//
// Every event becomes one line of JSON in every configured sink, or a record in the
// format of another system. Events wait in
// a bounded queue for each sink; a writer goroutine takes them in batches. What
// holds:
//
//   - An event is written once and whole. After a failed or short write the
//     writer goes on where it stopped; a line that a crash cut off is ended
//     before the next one begins.
//   - Nothing is dropped in silence. A full queue slows requests down; what
//     cannot be kept is counted, logged, and admitted in the audit log itself by
//     an event of kind "audit" as soon as writing works again.
//   - Records of a file are chained: each names the hash of the one before, and
//     with a key the last one of every write is signed. Verify finds what was
//     removed, changed or moved afterwards.
//   - What the log has about one person can be exported, and erased by the owner of
//     the key so that the chain stays whole.
//   - Events for a receiver elsewhere are written to a folder first, and sent from
//     there: at least once, in order, over restarts. What the receiver will never
//     take is put aside, and holds up nothing.
//   - While events cannot be written, Err says so. With Config.Required the
//     proxy then refuses requests, and Record rather waits than loses one.
//
// A line is handed to the operating system before it leaves the queue. It is
// not forced to the disk one by one: a crash of Doorward loses nothing that was
// written, a crash of the machine may lose the last seconds.
package audit
