package store

import (
	"context"
	"strings"
	"sync"
)

// watchBuffer is how many changes a watcher may be behind, the last place being
// kept for the notice that it lost some.
const watchBuffer = 256

// hub hands changes to watchers without ever waiting for one. The zero value is
// ready. Publishers must call publish in the order of the changes.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	refusal  error // why nobody can watch; nil while they can
}

type watcher struct {
	prefix string
	after  uint64 // changes up to this version were made before it watched
	ch     chan Change
	stop   func() bool // detaches the watcher from its context
}

// watch adds a watcher that sees changes of a version above after.
func (h *hub) watch(ctx context.Context, prefix string, after uint64) (<-chan Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refusal != nil {
		return nil, h.refusal
	}
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	w := &watcher{prefix: prefix, after: after, ch: make(chan Change, watchBuffer)}
	h.watchers[w] = struct{}{}
	w.stop = context.AfterFunc(ctx, func() { h.remove(w) })
	return w.ch, nil
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.watchers[w]; ok {
		delete(h.watchers, w)
		close(w.ch)
	}
}

func (h *hub) publish(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if c.Version > w.after && strings.HasPrefix(c.Key, w.prefix) {
			w.send(c)
		}
	}
}

// lost tells every watcher that there were changes nobody knows of. Versions may
// begin anew then, so that those of before tell nothing about what comes.
func (h *hub) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.after = 0
		w.send(Change{Lost: true})
	}
}

// send never blocks: publish is the only sender, and it holds the lock. The
// last place of the buffer is only ever taken by a loss notice. So when the
// buffer is full, the notice that ends it has not been read yet and covers this
// change too.
func (w *watcher) send(c Change) {
	switch len(w.ch) {
	case cap(w.ch):
	case cap(w.ch) - 1:
		w.ch <- Change{Lost: true}
	default:
		w.ch <- c
	}
}

// close ends every watcher, and refuses new ones, for this reason, until open.
func (h *hub) close(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusal = why
	for w := range h.watchers {
		w.stop()
		close(w.ch)
	}
	clear(h.watchers)
}

func (h *hub) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusal = nil
}

// err returns why nobody can watch, nil while they can.
func (h *hub) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusal
}
