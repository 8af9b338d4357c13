package serve

import (
	"context"
	"fmt"
	"log/slog"
	"net/rpc"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/lent"
	"github.com/doorward/doorward/internal/telemetry"
)

// predecessor is the doorward that this one takes over from. Nil: there is none.
type predecessor struct {
	talk      *talk
	pid       int
	given     []*listening
	providers []string
	serving   bool          // this one does
	gone      chan struct{} // closed when it has ended
}

// findPredecessor returns who has started this process to take over.
func findPredecessor() (*predecessor, error) {
	pid := os.Getenv(handoverVariable)
	os.Unsetenv(handoverVariable) // it is about no other process
	if pid == "" {
		return nil, nil
	}
	if pid != strconv.Itoa(os.Getppid()) {
		return nil, fmt.Errorf("the doorward that has started this one (process %s) has ended; start anew", pid)
	}
	keepPrivate(hearFile)
	keepPrivate(sayFile)
	p := &predecessor{talk: newTalk(os.NewFile(hearFile, "predecessor"), os.NewFile(sayFile, "predecessor")), pid: os.Getppid(), gone: make(chan struct{})}
	offer, err := p.talk.hear(stepOffer)
	if err != nil {
		return nil, fmt.Errorf("taking over: %w", err)
	}
	p.providers = offer.Providers
	for i, place := range offer.Places {
		l, err := inherit(firstListener+i, place.Key, place.Address)
		if err != nil {
			err = fmt.Errorf("taking over: %s: %w", place.Key, err)
			p.fail(err)
			return nil, err
		}
		l.kept = place.Kept
		p.given = append(p.given, l)
	}
	return p, nil
}

// fail tells why this one does not take over.
func (p *predecessor) fail(err error) {
	if p == nil || p.serving || err == nil {
		return
	}
	p.talk.say(word{Error: err.Error()})
}

// open says that everything is prepared, and returns when the state file and the
// audit log may be opened.
func (p *predecessor) open() error {
	if err := p.talk.say(word{Step: stepPrepared}); err != nil {
		return err
	}
	_, err := p.talk.hear(stepOpen)
	return err
}

// lend says that this one serves, and lends the store and the audit log for as
// long as the other one lives.
func (p *predecessor) lend(ctx context.Context, kept store.Store, trail *audit.Log, log *slog.Logger) (err error) {
	p.serving = true
	ctx, end := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			end()
		}
	}()
	server := rpc.NewServer()
	if err := server.RegisterName(lent.Service, lent.NewLender(ctx, kept)); err != nil {
		return err
	}
	if err := server.RegisterName(recordService, &Keeper{trail}); err != nil {
		return err
	}
	if err := p.talk.say(word{Step: stepServing}); err != nil {
		return err
	}
	go func() {
		server.ServeConn(&listened{p.talk, end}) // returns when the last call has
		close(p.gone)
		log.Info("the process before this one has ended", "pid", p.pid)
	}()
	return nil
}

// listened is a talk that says when nobody is at the other end any more.
type listened struct {
	*talk
	end func()
}

// Read implements io.Reader.
func (l *listened) Read(b []byte) (int, error) {
	n, err := l.talk.Read(b)
	if err != nil {
		l.end()
	}
	return n, err
}

// present reports whether it has not ended yet.
func (p *predecessor) present() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// rehearse makes everything that a configuration asks for, without the store and
// the audit log, which the doorward before still has. What was learnt on the way,
// from providers and inventories, is for the real one. It is an error if one of
// these providers cannot be used.
func rehearse(ctx context.Context, opts Options, cfg *config.Config, log *slog.Logger, providers []string) (*installed, error) {
	metrics := telemetry.New(telemetry.Options{Version: opts.Version})
	records := &recorder{metrics: metrics, log: slog.New(slog.DiscardHandler), audit: nowhere{}}
	kept := store.NewMemory(opts.Now)
	defer kept.Close()
	l, err := assemble(ctx, parts{opts: opts, cfg: cfg, log: log, metrics: metrics, records: records, store: kept})
	if err != nil {
		return nil, err
	}
	defer l.close()
	l.rehearsal = true
	if err := l.install(ctx, cfg); err != nil {
		return nil, err
	}
	known := l.current.Load()
	limit, cancel := context.WithTimeout(ctx, learnLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := known.unready(providers)
		if len(missing) == 0 {
			return &installed{authn: known.authn, devices: known.devices, stop: func() {}}, nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return nil, fmt.Errorf("what the running doorward knows of providers cannot be learnt: %s", strings.Join(missing, "; "))
		}
	}
}

// ready lists the providers that can be used.
func (i *installed) ready() (ids []string) {
	for id, err := range i.authn.Ready() {
		if err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// unready lists those of some providers that are configured and cannot be used.
func (i *installed) unready(ids []string) (why []string) {
	ready := i.authn.Ready()
	for _, id := range ids {
		if err := ready[id]; err != nil {
			why = append(why, fmt.Sprintf("%s: %v", id, err))
		}
	}
	return why
}
