package devicecheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// retryList is how soon a list that could not be read is tried again.
const retryList = time.Minute

// listSource keeps one revocation list current.
type listSource struct {
	entry string // as configured, or as a certificate names it
	named bool   // by a certificate
	file  *file  // nil: an address

	// read tells that the list was tried at least once, and first is closed then.
	read  atomic.Bool
	first chan struct{}

	reading sync.Mutex // one at a time
	// last is the last good list, nil until there was one. It and health belong
	// to revocation.mu.
	last   *list
	health health
}

func newListSource(entry string) *listSource {
	s := &listSource{entry: entry, first: make(chan struct{})}
	if !isAddress(entry) {
		s.file = &file{path: entry}
	}
	return s
}

// follow reads a list at once, at every announcement and at every refresh,
// until ctx ends.
func (r *revocation) follow(ctx context.Context, s *listSource, changed func()) {
	var announced <-chan struct{}
	watched := true // so that a failure is logged once
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if s.file != nil && announced == nil {
			var err error
			if announced, err = s.file.announce(ctx); err != nil && watched {
				r.log.Warn("revocation list is polled only, because it cannot be watched", "source", s.entry, "err", err)
			}
			watched = err == nil
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-announced:
			if !ok {
				announced = nil
			}
		case <-timer.C:
		}
		if r.read(ctx, s) {
			changed()
		}
		timer.Reset(r.pause(s))
	}
}

// pause is the time until a list is read again: the refresh, or sooner where it
// ends before that or could not be read.
func (r *revocation) pause(s *listSource) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause := r.refresh()
	if s.last != nil {
		if left := s.last.nextUpdate.Sub(r.now()); left > 0 {
			pause = min(pause, max(left/2, minRemote.Std()))
		}
	}
	if s.health.err != "" {
		pause = min(pause, retryList)
	}
	return r.shortened(pause)
}

// read reads a list once and reports whether it changed anything.
func (r *revocation) read(ctx context.Context, s *listSource) (changed bool) {
	s.reading.Lock()
	defer s.reading.Unlock()
	data, err := r.fetchList(ctx, s)
	var next *list
	if err == nil {
		next, err = parseList(data)
	}
	if ctx.Err() != nil && err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return false // we are stopping, which is no failure of the list
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer s.tried()
	if err == nil {
		err = r.mayReplace(s, next)
	}
	news := s.health.heard(err, r.now())
	if err != nil {
		r.report(&s.health, "revocation list", s.entry, news)
		return false
	}
	fresh := s.last == nil || !bytes.Equal(s.last.signed.Signature, next.signed.Signature)
	if fresh {
		s.last = next
		r.publish()
		r.log.Info("revocation list read", "source", s.entry, "revoked", len(next.serials), "until", next.nextUpdate)
	}
	r.report(&s.health, "revocation list", s.entry, news)
	return fresh
}

// mayReplace demands the signature of an authority. A list of an authority that
// has not been seen yet waits for it; until then it says nothing, and any other
// list may take its place.
func (r *revocation) mayReplace(s *listSource, next *list) error {
	signed, before := len(r.signers(next)) > 0, s.last
	switch {
	case before == nil || len(r.signers(before)) == 0:
		before = nil
	case s.file != nil && signed && !bytes.Equal(before.issuer, next.issuer):
		before = nil // who may write the file may also choose another authority
	}
	if err := next.check(before, r.now()); err != nil {
		return err
	}
	if before != nil && !signed {
		return errors.New("the revocation list does not bear the signature of the authority of the one before")
	}
	for _, a := range r.authorities {
		if !signed && bytes.Equal(a.RawSubject, next.issuer) {
			return errors.New("the revocation list does not bear the signature of the authority it names")
		}
	}
	return nil
}

// tried releases those who wait for the first reading.
func (s *listSource) tried() {
	if !s.read.Swap(true) {
		close(s.first)
	}
}

func (r *revocation) fetchList(ctx context.Context, s *listSource) ([]byte, error) {
	if s.file != nil {
		return readWhole(s.file.path)
	}
	req, err := http.NewRequest(http.MethodGet, s.entry, nil)
	if err != nil {
		return nil, errors.New("the address of the revocation list is invalid")
	}
	return r.fetch(ctx, req, maxList)
}

// fetch sends a request and returns the whole body of an answer 200.
func (r *revocation) fetch(ctx context.Context, req *http.Request, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	where := place(req.URL)
	resp, err := r.client.Do(req.WithContext(ctx))
	if err != nil {
		var told *url.Error // which repeats the whole address
		if errors.As(err, &told) {
			err = told.Err
		}
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", where, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: the answer breaks off: %w", where, err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", where, limit)
	}
	return body, nil
}
