package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/lent"
)

// successor is a process that takes over from this one.
type successor struct {
	cmd    *exec.Cmd
	talk   *talk
	ended  chan struct{} // closed when it has, and err is set
	err    error
	client *rpc.Client // once it serves
}

var errStillTwo = errors.New("the doorward before this one has not ended yet, try again when it has")

// handOver starts another doorward and hands everything over to it. On an error
// this one goes on as before, and nothing is left of the other.
func (r *running) handOver(ctx context.Context) (_ *successor, err error) {
	if r.before.present() {
		return nil, errStillTwo
	}
	next, err := r.startSuccessor()
	if err != nil {
		return nil, err
	}
	if _, err := next.await(ctx, stepPrepared, prepareLimit); err != nil {
		return nil, next.kill(err)
	}
	began := time.Now()
	r.stopIssuing()
	r.records.leave()
	var left error
	if r.moving != nil {
		left = r.moving.Leave()
	}
	err = cmp.Or(left, next.talk.say(word{Step: stepOpen}))
	if err == nil {
		_, err = next.await(context.WithoutCancel(ctx), stepServing, openLimit)
	}
	if err != nil {
		err = next.kill(err) // so that it has let go of everything
		r.takeBack(ctx)
		return nil, err
	}
	next.client = rpc.NewClient(next.talk)
	if r.moving != nil {
		r.moving.Arrive(lent.Borrow(next.client))
	}
	r.records.arrive(&elsewhere{client: next.client, log: r.log})
	r.log.Info("another process has taken over", "pid", next.cmd.Process.Pid, "pause", time.Since(began).Round(time.Microsecond))
	tellSystemd(r.log, "MAINPID="+strconv.Itoa(next.cmd.Process.Pid))
	return next, nil
}

// startSuccessor starts the program that is at this one's place now.
func (r *running) startSuccessor() (next *successor, err error) {
	listeners, places, err := r.open.files()
	var mine, theirs []*os.File
	defer func() {
		for _, file := range append(listeners, theirs...) {
			file.Close()
		}
		if err != nil {
			for _, file := range mine {
				file.Close()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	for range 2 {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if len(mine) == 0 { // what it says
			mine, theirs = append(mine, read), append(theirs, write)
		} else {
			mine, theirs = append(mine, write), append(theirs, read)
		}
	}
	next = &successor{cmd: exec.Command(r.opts.Program, r.opts.Args...), talk: newTalk(mine[0], mine[1]), ended: make(chan struct{})}
	next.cmd.Env = append(os.Environ(), handoverVariable+"="+strconv.Itoa(os.Getpid()))
	next.cmd.Stdout, next.cmd.Stderr = os.Stdout, os.Stderr
	next.cmd.ExtraFiles = append([]*os.File{theirs[1], theirs[0]}, listeners...)
	if err := next.cmd.Start(); err != nil {
		return nil, err
	}
	r.log.Info("another process is asked to take over", "program", r.opts.Program, "pid", next.cmd.Process.Pid)
	go func() {
		next.err = next.cmd.Wait()
		close(next.ended)
	}()
	if err := next.talk.say(word{Step: stepOffer, Places: places, Providers: r.live.current.Load().ready()}); err != nil {
		return nil, next.kill(err)
	}
	return next, nil
}

// await waits for a step.
func (s *successor) await(ctx context.Context, step string, limit time.Duration) (word, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.talk.in.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	w, err := s.talk.hear(step)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return w, err
}

// kill ends it, and returns why when it has let go of everything.
func (s *successor) kill(why error) error {
	s.talk.Close()
	s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(killLimit):
		s.cmd.Process.Kill()
		<-s.ended
	}
	if errors.Is(why, io.EOF) {
		why = fmt.Errorf("it has ended: %v", s.err)
	}
	return why
}

// takeBack opens again what was closed for the other one. Until that succeeds,
// requests wait, or for as long as the run lasts.
func (r *running) takeBack(ctx context.Context) {
	var at trail = missing{r.log}
	r.retry(ctx, "the audit log", func() error {
		log, err := r.openAudit()
		if err == nil {
			at = log
		}
		return err
	})
	r.records.arrive(at)
	if r.moving != nil {
		r.retry(ctx, "the store", func() error {
			kept, err := store.Open(r.cfg.Sessions.Store, r.opts.Now)
			if err == nil {
				r.moving.Arrive(kept)
			}
			return err
		})
	}
	r.startIssuing(ctx)
}

// retry opens something until that succeeds or ctx ends, at least once.
func (r *running) retry(ctx context.Context, what string, open func() error) {
	for {
		err := open()
		if err == nil {
			return
		}
		r.log.Error(what+" cannot be opened again; trying again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}
