package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/send"
	"github.com/doorward/doorward/internal/yield"
)

const (
	batchBytes = 256 << 10              // most bytes of one write, except for a longer line
	patience   = time.Second            // how long a request waits for room if the log is not required
	stalled    = 5 * time.Second        // a write that takes longer counts as failing
	firstRetry = 100 * time.Millisecond // pause after the first failed write, doubled up to
	lastRetry  = 5 * time.Second        // this
	logEvery   = 1000                   // lost events per line in the operator's log
)

// spool is the queue and the writer of one sink. The goroutine in run owns out.
type spool struct {
	name     string
	path     string // of a file, else empty
	out      io.WriteCloser
	open     func(path string) (io.WriteCloser, error)
	required bool
	now      func() time.Time
	log      *slog.Logger

	pack     func(to []byte, line encoded, last bool) []byte // appends a line as the sink writes it
	chain    *chain                                          // of a file, else nil
	rotation *rotation                                       // of a file, else nil
	shipper  *shipper                                        // of a receiver elsewhere, else nil
	hidden   bool                                            // gets pseudonyms
	alone    bool                                            // there is no other sink: lines are its own

	lines    chan encoded
	reopen   chan chan error
	closing  <-chan struct{} // ends waiting for room
	quit     chan struct{}   // write what is queued, then end
	abandon  chan struct{}   // end although something is queued
	done     chan struct{}
	batched  atomic.Int64 // events taken from the queue and not yet written
	lost     atomic.Uint64
	writing  atomic.Int64          // Unix nanoseconds when the write in progress began, 0: none
	failure  atomic.Pointer[error] // of the last write
	quitting error                 // result of the writer, valid after done

	mu  sync.Mutex
	gap gap
}

// gap is what has to be admitted by the next event of kind "audit".
type gap struct {
	lost, refused uint64
	since         time.Time
}

func newSpool(sink Sink, required bool, opts Options, closing <-chan struct{}) (*spool, error) {
	s := &spool{
		name: "stdout", out: keepOpen{opts.Stdout}, hidden: sink.Privacy == privacyPseudonyms, open: opts.OpenFile, required: required, now: opts.Now, log: opts.Log,
		lines: make(chan encoded, opts.Queue), reopen: make(chan chan error), closing: closing,
		quit: make(chan struct{}), abandon: make(chan struct{}), done: make(chan struct{}),
	}
	s.pack = func(to []byte, line encoded, _ bool) []byte { return line.appendTo(to) }
	var err error
	switch {
	case sink.File.Path != "":
		err = s.openChain(sink.File, opts)
	case sink.Stdout:
		if !sink.plain() {
			s.pack = packer(preparer(sink.Format, opts.format()))
		}
	default:
		err = s.openSpool(&sink, opts)
	}
	return s, err
}

// packer translates lines as they are written.
func packer(prepare func([]byte) (send.Record, error)) func(to []byte, line encoded, last bool) []byte {
	return func(to []byte, line encoded, _ bool) []byte {
		record, err := prepare(line.whole())
		if err != nil {
			return line.appendTo(to) // better in another format than not at all
		}
		return append(append(to, record.Body...), '\n')
	}
}

// openSpool opens the way to a receiver elsewhere.
func (s *spool) openSpool(sink *Sink, opts Options) error {
	s.name = sink.To.Name()
	sender, limits, err := send.New(&sink.To, send.Options{Host: opts.Host, Version: opts.Version, Now: opts.Now, Log: opts.Log})
	if err != nil {
		return err
	}
	s.shipper = &shipper{name: s.name, sender: sender, limits: limits, prepare: preparer(sink.Format, opts.format()), now: opts.Now, log: opts.Log}
	s.shipper.backlog, err = openBacklog(sink.Spool, opts.Log, s.dropped)
	s.out = s.shipper.backlog
	return err
}

// dropped counts events that made room for newer ones before they were sent.
func (s *spool) dropped(n uint64) {
	if n == 0 {
		return
	}
	s.admit(gap{lost: n})
	s.lost.Add(n)
	s.shipper.dropped.Add(n)
	s.log.Error("audit events were dropped to make room for newer ones", "sink", s.name, "dropped", n)
}

// openChain opens the file of a file sink, where its chain ended.
func (s *spool) openChain(file FileSink, opts Options) error {
	s.name, s.path = file.Path, file.Path
	if err := finishAllErasing(s.path); err != nil {
		return err
	}
	out, err := s.open(s.path)
	if err != nil {
		return err
	}
	s.chain = &chain{key: opts.key}
	if err := s.chain.resume(s.path); err != nil {
		out.Close()
		return err
	}
	s.out, s.pack, s.rotation = out, s.chain.link, newRotation(file, opts)
	s.rotation.began()
	return nil
}

// start begins to write.
func (s *spool) start() {
	if s.rotation != nil {
		go s.rotation.keep()
	}
	if s.shipper != nil {
		s.shipper.start()
	}
	go s.run()
}

// keepOpen is standard output, which is not ours to close.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

func (s *spool) offer(line encoded) bool {
	select {
	case s.lines <- line:
		return true
	default:
		return false
	}
}

// wait queues a line that found the queue full.
func (s *spool) wait(line encoded, refusal bool) {
	var timeout <-chan time.Time
	switch {
	case refusal && s.err() != nil:
		s.admit(gap{refused: 1})
		return
	case s.required:
	case s.err() != nil:
		s.lose(line)
		return
	default:
		timer := time.NewTimer(patience)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case s.lines <- line:
	case <-timeout:
		s.lose(line)
	case <-s.closing:
		if !s.offer(line) {
			s.lose(line)
		}
	}
}

// lose counts an event that cannot be kept. The first and every thousandth are
// logged with what they said, as the last place that can tell, without the groups
// that would leave no room for it.
func (s *spool) lose(line encoded) {
	s.admit(gap{lost: 1})
	if n := s.lost.Add(1); n%logEvery == 1 {
		s.log.Error("audit events are lost", "sink", s.name, "lost", n, "error", s.err(), "event", string(line.rest[:min(len(line.rest), 4096)]))
	}
}

func (s *spool) admit(g gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gap.since.IsZero() {
		s.gap.since = s.now()
	}
	s.gap.lost += g.lost
	s.gap.refused += g.refused
}

// takeGap returns the line that admits what is missing, empty if nothing is.
func (s *spool) takeGap() encoded {
	s.mu.Lock()
	g := s.gap
	s.gap = gap{}
	s.mu.Unlock()
	if g.since.IsZero() {
		return encoded{}
	}
	line, err := encode(&access.Event{Kind: access.EventAudit, Time: s.now(), Reason: access.AuditUnavailable,
		Note: fmt.Sprintf("since %s this log could not be written: %d events are missing, and %d requests that were refused for that reason",
			g.since.UTC().Format(time.RFC3339), g.lost, g.refused)})
	if err != nil {
		s.log.Error("the gap in the audit log could not be recorded", "sink", s.name, "error", err)
	}
	return line
}

func (s *spool) depth() int { return len(s.lines) + int(s.batched.Load()) }

// err tells why the sink cannot be written: the last write failed, or the one
// in progress does not come to an end (a pipe nobody reads, a dead file server).
func (s *spool) err() error {
	if failure := s.failure.Load(); failure != nil {
		return *failure
	}
	if began := s.writing.Load(); began != 0 {
		if took := s.now().Sub(time.Unix(0, began)); took > stalled {
			return fmt.Errorf("audit log %s: a write has not finished for %s", s.name, took.Round(time.Second))
		}
	}
	return nil
}

// run takes lines from the queue until quit, then the rest.
func (s *spool) run() {
	defer close(s.done)
	var batch []byte
	for {
		select {
		case line := <-s.lines:
			yield.ToOthers() // whoever is about to record something is part of the same write
			batch = s.collect(batch[:0], line)
			s.rotate(len(batch))
			if !s.deliver(batch) {
				s.end()
				return
			}
		case answer := <-s.reopen:
			answer <- s.swap()
		case <-s.quit:
			if len(s.lines) == 0 {
				s.end()
				return
			}
		}
	}
}

// collect packs the line and what else is queued, up to the size of one write.
func (s *spool) collect(batch []byte, line encoded) []byte {
	s.batched.Store(1)
	for size := line.size(); size < batchBytes; {
		select {
		case next := <-s.lines:
			batch = s.packOne(batch, line, false)
			line = next
			size += next.size()
			s.batched.Add(1)
		default:
			return s.packOne(batch, line, true)
		}
	}
	return s.packOne(batch, line, true)
}

// packOne packs a line, which nobody needs any more then.
func (s *spool) packOne(batch []byte, line encoded, last bool) []byte {
	batch = s.pack(batch, line, last)
	if s.alone {
		freeLine(line.rest)
	}
	return batch
}

// rotate puts the file aside if it is due, before the next write. Where that
// fails, the file that is open stays in use.
func (s *spool) rotate(more int) {
	file, ok := s.out.(interface{ Stat() (fs.FileInfo, error) })
	if s.rotation == nil || !ok {
		return
	}
	info, err := file.Stat()
	if err != nil || !s.rotation.due(info.Size(), int64(more)) {
		return
	}
	if err = s.rotation.aside(); err == nil {
		err = s.swap()
	}
	if err != nil {
		s.rotation.after = s.now().Add(rotateRetry)
		s.log.Error("the audit log was not rotated; the old file goes on", "path", s.path, "error", err)
		return
	}
	select {
	case s.rotation.sweep <- struct{}{}:
	default: // a sweep that has not begun yet will see this file too
	}
}

// deliver writes the batch, however often that takes, and the admission of a
// gap after it. It reports false if it was told to give up.
func (s *spool) deliver(batch []byte) bool {
	admitted := false
	for len(batch) > 0 {
		if !s.writeAll(batch) {
			return false
		}
		s.batched.Store(0)
		if admitted {
			return true
		}
		batch = nil
		if line := s.takeGap(); line.size() > 0 {
			batch = s.pack(nil, line, true)
		}
		// Where the oldest make room, an admission may make another one necessary;
		// that one can wait for the next event.
		admitted = s.shipper != nil
	}
	return true
}

func (s *spool) writeAll(batch []byte) bool {
	written, pause := 0, firstRetry
	for {
		n, err := s.writeOnce(batch[written:])
		written += n
		if err == nil {
			s.recovered()
			return true
		}
		s.failed(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, lastRetry)
		case answer := <-s.reopen:
			err := s.swap()
			if err == nil {
				// The new file starts with a whole line.
				written = bytes.LastIndexByte(batch[:written], '\n') + 1
			}
			answer <- err
		case <-s.abandon:
			timer.Stop()
			s.batched.Store(min(s.batched.Load(), int64(bytes.Count(batch[written:], []byte("\n")))))
			return false
		}
		timer.Stop()
	}
}

func (s *spool) writeOnce(p []byte) (int, error) {
	s.writing.Store(s.now().UnixNano())
	defer s.writing.Store(0)
	n, err := s.out.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return min(max(n, 0), len(p)), err
}

func (s *spool) failed(err error) {
	wrapped := fmt.Errorf("audit log %s: %w", s.name, err)
	if s.failure.Swap(&wrapped) == nil {
		s.log.Error("audit events cannot be written and wait in memory", "sink", s.name, "error", err, "waiting", s.depth(), "required", s.required)
	}
}

func (s *spool) recovered() {
	if s.failure.Swap(nil) != nil {
		s.log.Info("audit events are written again", "sink", s.name, "waiting", s.depth(), "lost", s.lost.Load())
	}
}

// requestReopen has the writer open its file again, between two writes.
func (s *spool) requestReopen() error {
	if s.path == "" {
		return nil
	}
	answer := make(chan error, 1)
	timer := time.NewTimer(stalled)
	defer timer.Stop()
	select {
	case s.reopen <- answer:
		return <-answer
	case <-s.closing:
		return nil
	case <-timer.C:
		return fmt.Errorf("audit log %s: not opened again, because a write has not finished for %s", s.name, stalled)
	}
}

func (s *spool) swap() error {
	out, err := s.open(s.path)
	if err != nil {
		return err
	}
	old := s.out
	s.out = out
	if s.rotation != nil {
		s.rotation.began()
	}
	return s.closeFile(old)
}

func (s *spool) closeFile(out io.WriteCloser) error {
	var failed error
	if f, ok := out.(interface{ Sync() error }); ok {
		failed = f.Sync()
	}
	if err := out.Close(); failed == nil {
		failed = err
	}
	if failed != nil {
		failed = fmt.Errorf("audit log %s: %w", s.name, failed)
	}
	return failed
}

func (s *spool) end() {
	if s.rotation != nil {
		close(s.rotation.stop)
		<-s.rotation.done
	}
	left := uint64(s.depth())
	s.lost.Add(left)
	if s.shipper == nil {
		s.quitting = s.closeFile(s.out)
	}
	if left > 0 {
		s.quitting = fmt.Errorf("%d events were not written: %w", left, *s.failure.Load())
		s.log.Error("audit events are lost at shutdown", "sink", s.name, "lost", left, "error", s.quitting)
	}
}

// finish waits for the writer, and then for what is on its way elsewhere.
func (s *spool) finish(writing, sending context.Context) error {
	err := s.finishWriting(writing)
	if s.shipper == nil {
		return err
	}
	s.shipper.stop(sending)
	return errors.Join(err, s.closeFile(s.out))
}

// finishWriting waits for the writer. One that hangs in a write is left behind.
func (s *spool) finishWriting(ctx context.Context) error {
	select {
	case <-s.done:
		return s.quitting
	case <-ctx.Done():
	}
	close(s.abandon)
	timer := time.NewTimer(firstRetry)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.quitting
	case <-timer.C:
		return fmt.Errorf("audit log %s: a write does not finish; %d events were not written: %w", s.name, s.depth(), ctx.Err())
	}
}
