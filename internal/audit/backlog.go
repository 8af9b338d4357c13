package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	segmentSuffix = ".segment"
	positionFile  = "position"
	lockFile      = "lock"
	maxSegment    = 8 << 20
	perBacklog    = 16 // segments in a full backlog, so that dropping one costs little
)

// backlog keeps events on disk, in order, until a receiver has them. It is a
// folder of segments, files that are only appended to, and the position of the
// first event that was not received yet. A crash at any point loses nothing that
// was written, and repeats at most what was received since the last position.
type backlog struct {
	dir      string
	max      int64
	drop     bool           // the oldest events when it is full, instead of failing
	dropped  func(n uint64) // told before Write returns
	log      *slog.Logger
	lock     *os.File
	arrivals chan struct{} // has an element if there may be something to read

	mu       sync.Mutex
	segments []segment // the oldest first; the last one is written to
	out      *os.File
	at       position
	records  int64 // from at on
}

// segment is one file.
type segment struct {
	number uint64
	size   int64
}

// position is a place between two events.
type position struct {
	segment uint64
	offset  int64
}

var errBacklogFull = errors.New("the receiver has not taken anything for so long that the spool is full")

func openBacklog(cfg SpoolConfig, log *slog.Logger, dropped func(uint64)) (_ *backlog, err error) {
	b := &backlog{dir: cfg.Dir, max: cfg.max(), drop: cfg.WhenFull == dropOldest, dropped: dropped, log: log, arrivals: make(chan struct{}, 1)}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit spool: %w; create the directory and give it to the user Doorward runs as", err)
	}
	b.lock, err = os.OpenFile(filepath.Join(b.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit spool: %w", err)
	}
	if err := takeLock(b.lock); err != nil {
		b.lock.Close()
		return nil, fmt.Errorf("audit spool: %s: %w; give each process its own", b.dir, err)
	}
	if err := b.load(); err != nil {
		b.lock.Close()
		return nil, fmt.Errorf("audit spool: %w", err)
	}
	return b, nil
}

// load finds what an earlier run left.
func (b *backlog) load() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), segmentSuffix)
		number, err := strconv.ParseUint(name, 16, 64)
		if !ok || err != nil || !entry.Type().IsRegular() {
			continue
		}
		b.segments = append(b.segments, segment{number: number})
	}
	slices.SortFunc(b.segments, func(x, y segment) int { return cmp.Compare(x.number, y.number) })
	b.at = b.loadPosition()
	for len(b.segments) > 0 && b.segments[0].number < b.at.segment {
		if err := b.forget(); err != nil {
			return err
		}
	}
	if len(b.segments) > 0 && b.segments[0].number > b.at.segment {
		b.at = position{segment: b.segments[0].number}
	}
	for i := range b.segments {
		if err := b.measure(&b.segments[i]); err != nil {
			return err
		}
	}
	if err := b.grow(); err != nil {
		return err
	}
	b.ring()
	return nil
}

// measure learns the size of a segment and how many events wait in it. What a
// crash cut off at its end is removed: nobody was told that it is kept.
func (b *backlog) measure(s *segment) error {
	file, err := os.OpenFile(b.path(s.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, readAtOnce)
	var whole int64
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.size += int64(len(line))
			continue
		}
		s.size += int64(len(line))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		whole = s.size
		if s.number > b.at.segment || whole > b.at.offset {
			b.records++
		}
	}
	if whole < s.size {
		b.log.Warn("the last event of an audit spool was cut off by a crash", "path", file.Name())
		s.size = whole
		if err := file.Truncate(whole); err != nil {
			return err
		}
	}
	if s.number == b.at.segment {
		b.at.offset = min(b.at.offset, s.size)
	}
	return nil
}

func (b *backlog) path(number uint64) string {
	return filepath.Join(b.dir, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// loadPosition reads where the receiver is. Without a readable position
// everything that is kept is sent again, rather than anything not at all.
func (b *backlog) loadPosition() (at position) {
	text, err := os.ReadFile(filepath.Join(b.dir, positionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return position{}
	}
	if err == nil {
		_, err = fmt.Sscanf(string(text), "%x %d\n", &at.segment, &at.offset)
	}
	if err != nil || at.offset < 0 {
		b.log.Warn("the position of an audit spool cannot be read; everything in it is sent again", "dir", b.dir, "error", err)
		return position{}
	}
	return at
}

// grow begins a new segment.
func (b *backlog) grow() error {
	number := b.at.segment
	if n := len(b.segments); n > 0 {
		number = b.segments[n-1].number + 1
	}
	out, err := os.OpenFile(b.path(number), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if b.out != nil {
		b.out.Close()
	} else if len(b.segments) == 0 {
		b.at = position{segment: number}
	}
	b.out, b.segments = out, append(b.segments, segment{number: number})
	return nil
}

// forget deletes the oldest segment.
func (b *backlog) forget() error {
	if err := os.Remove(b.path(b.segments[0].number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.segments = b.segments[1:]
	return nil
}

// Write appends whole lines, all or none.
func (b *backlog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(int64(len(p))); err != nil {
		return 0, err
	}
	last := &b.segments[len(b.segments)-1]
	if last.size > 0 && last.size+int64(len(p)) > b.segmentSize() {
		if err := b.grow(); err != nil {
			return 0, err
		}
		last = &b.segments[len(b.segments)-1]
	}
	if n, err := b.out.Write(p); err != nil {
		if n > 0 {
			err = errors.Join(err, b.out.Truncate(last.size))
		}
		return 0, err
	}
	last.size += int64(len(p))
	b.records += int64(bytes.Count(p, []byte("\n")))
	b.ring()
	return len(p), nil
}

func (b *backlog) segmentSize() int64 { return min(maxSegment, b.max/perBacklog) }

// ring wakes the reader.
func (b *backlog) ring() {
	select {
	case b.arrivals <- struct{}{}:
	default:
	}
}

// room makes it, if it may.
func (b *backlog) room(more int64) error {
	for b.size()+more > b.max && b.size() > 0 {
		if !b.drop {
			return errBacklogFull
		}
		if len(b.segments) == 1 {
			if err := b.grow(); err != nil {
				return err
			}
		}
		oldest := b.segments[0]
		n, err := b.count(oldest)
		if err != nil {
			return err
		}
		if err := b.forget(); err != nil {
			return err
		}
		b.records -= n
		b.at = position{segment: b.segments[0].number}
		b.dropped(uint64(n))
	}
	return nil
}

func (b *backlog) size() (sum int64) {
	for _, s := range b.segments {
		sum += s.size
	}
	return sum
}

// count returns how many events of the oldest segment were not received yet.
func (b *backlog) count(s segment) (int64, error) {
	text, err := os.ReadFile(b.path(s.number))
	if err != nil {
		return 0, err
	}
	from := int64(0)
	if s.number == b.at.segment {
		from = min(b.at.offset, int64(len(text)))
	}
	return int64(bytes.Count(text[from:], []byte("\n"))), nil
}

// next returns lines that were not received yet, some at least if there are any,
// and the positions they stand between. Without any it returns no line.
func (b *backlog) next(records, size int) (lines [][]byte, from, to position, err error) {
	b.mu.Lock()
	from = b.at
	var here int64
	for i, s := range b.segments {
		if s.number != from.segment {
			continue
		}
		if here = s.size; from.offset >= here && i+1 < len(b.segments) {
			from = position{segment: b.segments[i+1].number}
			here = b.segments[i+1].size
		}
		break
	}
	b.mu.Unlock()
	to = from
	if from.offset >= here {
		return nil, from, to, nil
	}
	file, err := os.Open(b.path(from.segment))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, from, to, nil // dropped meanwhile; what made that necessary rings
	}
	if err != nil {
		return nil, from, to, err
	}
	defer file.Close()
	in := bufio.NewReaderSize(io.NewSectionReader(file, from.offset, here-from.offset), MaxLine)
	for sum := 0; len(lines) < records; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) && len(lines) > 0 {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, from, from, err
		}
		if sum += len(line); sum > size && len(lines) > 0 {
			break
		}
		lines = append(lines, bytes.TrimSuffix(bytes.Clone(line), []byte("\n")))
		to.offset += int64(len(line))
	}
	return lines, from, to, nil
}

// received moves the position, after the receiver has what lies between.
func (b *backlog) received(from, to position, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.segments[0].number > from.segment {
		return nil // dropped meanwhile, and counted there
	}
	if err := replace(filepath.Join(b.dir, positionFile), filepath.Join(b.dir, positionFile), func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%x %d\n", to.segment, to.offset)
		return err
	}); err != nil {
		return err
	}
	b.at = to
	b.records -= int64(n)
	for len(b.segments) > 1 && b.segments[0].number < to.segment {
		if err := b.forget(); err != nil {
			return err
		}
	}
	return nil
}

func (b *backlog) waiting() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.records
}

// Close ends writing, reading and the lock.
func (b *backlog) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.out.Sync(), b.out.Close(), b.lock.Close())
}
