package devicecheck

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Keeper keeps small values over restarts, out of reach of anybody else: what it
// returns is what was put under that name, or an error.
type Keeper interface {
	// Get returns the value of a name, nil if there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// Put keeps a value of up to 512 KiB until it expires.
	Put(ctx context.Context, name string, value []byte, expires time.Time) error
}

const (
	// keptFormat is raised whenever the meaning of what is kept changes; another
	// one is not read.
	keptFormat = 1
	// keptFor is how long a snapshot is kept that nobody renews. No facts count
	// for as long.
	keptFor = 7 * 24 * time.Hour
	// renewKept is how old the parts of a snapshot may be before they are
	// written again, so that they do not expire.
	renewKept = 24 * time.Hour
	// agePrecision is how much older a kept snapshot may look than it is, to
	// spare the store.
	agePrecision = 30 * time.Second

	keptPart    = 512 << 10
	maxParts    = 128
	maxUnpacked = 256 << 20
	keepTimeout = 30 * time.Second
)

// kept is the place where one source keeps its last good snapshot: a head, which
// says how old it is, and the devices, compressed and cut into parts. The parts
// lie in one of two slots in turn, so that a snapshot that is being written does
// not spoil the one before. Whatever does not fit together is no snapshot.
//
// The age of facts counts from when they were observed, and is kept with them: a
// restart never freshens any. What cannot be kept, because the store fails, is
// no outage; it is lost at the next restart. A nil kept keeps nothing.
type kept struct {
	keeper Keeper
	name   string
	now    func() time.Time
	log    *slog.Logger
	last   keptMark
}

// keptMark is what was kept last, and whether keeping failed last.
type keptMark struct {
	head   keptHead
	inv    *inventory
	failed bool
}

// keptHead is the description of a kept snapshot.
type keptHead struct {
	Format  int    `json:"format"`
	Version string `json:"version"`
	// ObservedAt and FailingSince are those of the state.
	ObservedAt   time.Time `json:"observed_at"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	// Slot, Parts and Sum are where the devices are, and the SHA-256 of all parts.
	Slot  int    `json:"slot"`
	Parts int    `json:"parts"`
	Sum   string `json:"sum"`
	// Written is when the parts were.
	Written time.Time `json:"written"`
}

func newKept(keeper Keeper, s Source, now func() time.Time, log *slog.Logger) *kept {
	if keeper == nil {
		return nil
	}
	// Secrets write themselves as [redacted]: another token reads the same
	// inventory, another address does not.
	text, err := json.Marshal(s)
	if err != nil {
		log.Warn("the snapshots of a device inventory cannot be kept", "source", s.ID, "err", err)
		return nil
	}
	sum := sha256.Sum256(text)
	return &kept{keeper: keeper, name: s.ID + "/" + hex.EncodeToString(sum[:8]), now: now, log: log.With("source", s.ID)}
}

func (k *kept) head() string            { return k.name + "/head" }
func (k *kept) part(slot, n int) string { return fmt.Sprintf("%s/%d/%d", k.name, slot, n) }

// load returns the state to begin with: the kept snapshot, or first where there
// is none. A source that was not read yet counts as failing since it was last
// known to be good.
func (k *kept) load(first *state) *state {
	ctx, cancel := context.WithTimeout(context.Background(), keepTimeout)
	defer cancel()
	head, inv, err := k.read(ctx)
	switch {
	case err != nil:
		k.log.Warn("the kept snapshot of a device inventory cannot be used", "err", err)
		return first
	case inv == nil:
		return first
	}
	k.last = keptMark{head: head, inv: inv}
	s := &state{source: first.source, inv: inv, observedAt: head.ObservedAt, failingSince: head.FailingSince, err: "not read since the start"}
	if s.failingSince.IsZero() {
		s.failingSince = s.observedAt
	}
	k.log.Info("the kept snapshot of a device inventory was found", "devices", s.size(), "observed", s.observedAt)
	return s
}

func (k *kept) read(ctx context.Context) (head keptHead, inv *inventory, err error) {
	text, err := k.keeper.Get(ctx, k.head())
	if err != nil || text == nil {
		return head, nil, err
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return head, nil, err
	}
	if head.Format != keptFormat {
		return head, nil, nil // of another version of the program
	}
	if err := head.check(k.now()); err != nil {
		return head, nil, err
	}
	var packed bytes.Buffer
	for n := range head.Parts {
		part, err := k.keeper.Get(ctx, k.part(head.Slot, n))
		if err != nil {
			return head, nil, err
		}
		packed.Write(part)
	}
	if sumOf(packed.Bytes()) != head.Sum {
		return head, nil, errors.New("its parts are not of one snapshot")
	}
	inv, err = unpack(&packed, head.Version)
	return head, inv, err
}

// keep keeps a state, unless it is kept already.
func (k *kept) keep(ctx context.Context, s *state) {
	if k == nil || s.inv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	err := k.write(ctx, s)
	switch {
	case ctx.Err() == nil && err != nil && !k.last.failed:
		k.log.Warn("the snapshot of a device inventory cannot be kept; after a restart it has to be read again", "err", err)
	case err == nil && k.last.failed:
		k.log.Info("the snapshot of a device inventory is kept again")
	}
	k.last.failed = err != nil
}

func (k *kept) write(ctx context.Context, s *state) error {
	now, last := k.now(), &k.last
	if last.inv == s.inv && s.observedAt.Sub(last.head.ObservedAt) < agePrecision && s.failingSince.Equal(last.head.FailingSince) &&
		now.Sub(last.head.Written) < renewKept && !last.failed {
		return nil
	}
	head := k.there(ctx) // of another replica, perhaps
	if head.ObservedAt.After(s.observedAt) {
		return nil
	}
	if last.inv != s.inv || head.Sum != last.head.Sum || now.Sub(head.Written) >= renewKept {
		packed, err := pack(s.inv)
		if err != nil {
			return err
		}
		if sum := sumOf(packed); sum != head.Sum || now.Sub(head.Written) >= renewKept {
			head.Sum, head.Slot, head.Written = sum, 1-head.Slot, now
			if head.Parts, err = k.writeParts(ctx, head.Slot, packed, now.Add(keptFor)); err != nil {
				return err
			}
		}
	}
	head.Format, head.Version, head.ObservedAt, head.FailingSince = keptFormat, s.inv.version, s.observedAt, s.failingSince
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if err := k.keeper.Put(ctx, k.head(), text, now.Add(keptFor)); err != nil {
		return err
	}
	last.head, last.inv = head, s.inv
	return nil
}

func (k *kept) writeParts(ctx context.Context, slot int, packed []byte, expires time.Time) (n int, err error) {
	for ; len(packed) > 0; n++ {
		part := packed[:min(len(packed), keptPart)]
		packed = packed[len(part):]
		if err := k.keeper.Put(ctx, k.part(slot, n), part, expires); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// there returns the head that is kept now, the zero head where there is none
// that can be used.
func (k *kept) there(ctx context.Context) (head keptHead) {
	text, err := k.keeper.Get(ctx, k.head())
	if err != nil || text == nil || json.Unmarshal(text, &head) != nil || head.check(k.now()) != nil {
		return keptHead{}
	}
	return head
}

var errKept = errors.New("its description makes no sense")

func (h *keptHead) check(now time.Time) error {
	if h.Format != keptFormat || h.Parts < 1 || h.Parts > maxParts || h.Slot&^1 != 0 || h.ObservedAt.IsZero() || h.ObservedAt.After(now.Add(ahead)) {
		return errKept
	}
	return nil
}

func sumOf(packed []byte) string {
	sum := sha256.Sum256(packed)
	return hex.EncodeToString(sum[:])
}

// pack writes the devices of an inventory, compressed.
func pack(inv *inventory) ([]byte, error) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	enc := json.NewEncoder(w)
	for n := range inv.devices {
		if err := enc.Encode(&inv.devices[n]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if packed.Len() > keptPart*maxParts {
		return nil, fmt.Errorf("it is larger than %d MiB, even compressed", keptPart*maxParts>>20)
	}
	return packed.Bytes(), nil
}

// unpack reads what pack has written.
func unpack(packed io.Reader, version string) (*inventory, error) {
	limited := &io.LimitedReader{R: flate.NewReader(packed), N: maxUnpacked}
	dec := json.NewDecoder(limited)
	b := newBuilder("the kept snapshot", version)
	for n := 0; ; n++ {
		var d access.Device
		if err := dec.Decode(&d); errors.Is(err, io.EOF) && limited.N > 0 {
			return b.done()
		} else if err != nil {
			return nil, err
		}
		if b.full(n+1, 1) || b.enough() {
			return b.done()
		}
		b.add(d, n+1, 1)
	}
}
