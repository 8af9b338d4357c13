package lane

import (
	"sync"
	"time"
)

// watchAfter is how long after somebody wanted to know anybody looks whether the visitor
// is still there: most answers are ready before, and cost nothing then.
const watchAfter = 10 * time.Millisecond

// watch looks for a visitor who leaves while a request is answered. What the visitor
// sends meanwhile stays where it is, and is the next request.
type watch struct {
	conn    *conn
	start   func()
	started bool // for this request
	timer   *time.Timer
	ended   chan struct{} // of what the timer has started

	mu       sync.Mutex
	looking  bool
	answered bool
	by       time.Time // what the handler has set; zero: nothing
}

func (w *watch) init(c *conn) {
	w.conn, w.ended = c, make(chan struct{}, 1)
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	w.start = func() {
		w.started = true
		w.timer.Reset(watchAfter)
	}
}

// look runs in a goroutine of its own.
func (w *watch) look() {
	defer func() { w.ended <- struct{}{} }()
	w.mu.Lock()
	if w.answered {
		w.mu.Unlock()
		return
	}
	w.looking = true
	w.conn.SetReadDeadline(w.by)
	w.mu.Unlock()
	something := 0
	err := w.conn.socket.Read(func(fd uintptr) (ready bool) {
		something, _, ready = peekNow(fd)
		return ready
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking = false; !w.answered && (err != nil || something == 0) {
		w.conn.lost()
	}
}

// stop ends with the request, whose context has ended. Nobody else reads from then on,
// and the deadline is that of the connection.
func (w *watch) stop() {
	if w.started && !w.timer.Stop() {
		w.mu.Lock()
		w.answered = true
		w.conn.SetReadDeadline(time.Unix(1, 0))
		w.mu.Unlock()
		<-w.ended
		w.answered = false
		w.conn.SetReadDeadline(w.conn.deadline)
	}
	w.started = false
	w.mu.Lock()
	w.by = time.Time{}
	w.mu.Unlock()
}

// setDeadline is what a handler sets: when it passes, the request is over, as if the
// visitor had left.
func (w *watch) setDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by = t; w.looking {
		return w.conn.SetReadDeadline(t)
	}
	return nil
}
