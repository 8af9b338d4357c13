package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/audit"
)

// withProgress runs a pass over audit files and shows on a terminal how far it is.
func withProgress[T any](ctx context.Context, files *audit.Files, tell io.Writer, run func() (T, error)) (T, error) {
	terminal, ok := tell.(*os.File)
	if !ok || !isTerminal(terminal) {
		return run()
	}
	began, from := time.Now(), files.Read()
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(terminal, "\r\x1b[K")
				return
			case <-ctx.Done():
				fmt.Fprint(terminal, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprint(terminal, "\r"+progressLine(files.Read()-from, files.Size, time.Since(began))+"\x1b[K")
			}
		}
	}()
	result, err := run()
	close(done)
	<-stopped
	return result, err
}

// progressLine shows bytes, speed and the time that is left.
func progressLine(read, size int64, took time.Duration) string {
	const megabyte = 1 << 20
	speed := float64(read) / max(took.Seconds(), 0.001)
	if size <= 0 {
		return fmt.Sprintf("%d MB read, %.0f MB/s", read/megabyte, speed/megabyte)
	}
	part := min(float64(read)/float64(size), 1)
	bar := strings.Repeat("=", int(part*30))
	left := "…"
	if read > 0 {
		left = time.Duration(float64(size-min(read, size)) / speed * float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf("[%-30s] %3.0f %%  %d of %d MB, %.0f MB/s, %s left", bar, part*100, read/megabyte, size/megabyte, speed/megabyte, left)
}
