package history

import (
	"context"
	"runtime"
	"sync"

	"github.com/doorward/doorward/internal/audit"
)

// scan judges the batches of a log on all processors and takes the results in
// the order of the log, so that what comes out does not depend on the number of
// processors. A few batches for each of them are in memory at any time.
func scan[T any](ctx context.Context, files *audit.Files, judge func(audit.Batch) T, take func(T)) error {
	type job struct {
		batch audit.Batch
		done  chan T
	}
	workers := runtime.GOMAXPROCS(0)
	work, order := make(chan job), make(chan job, 2*workers)
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	for range workers {
		all.Go(func() {
			for j := range work {
				j.done <- judge(j.batch)
			}
		})
	}
	all.Go(func() {
		defer close(order)
		defer close(work)
		for batch := range files.Batches() {
			j := job{batch, make(chan T, 1)}
			select {
			case order <- j:
			case <-ctx.Done():
				return
			}
			select {
			case work <- j:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case j, more := <-order:
			if !more {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case result := <-j.done:
				take(result)
			}
		}
	}
}
