package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed wrk.lua
var wrkScript []byte

// wrk loads over HTTP/1.1, with or without TLS.
func (b *bench) wrk(ctx context.Context, l *load, d time.Duration) (s sample, err error) {
	program, err := find("wrk", "wrk")
	if err != nil {
		return s, err
	}
	script := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(script, wrkScript, 0o600); err != nil {
		return s, err
	}
	args := []string{"-t1", "-c" + strconv.Itoa(inFlight), "-d" + strconv.Itoa(max(1, int(d/time.Second))) + "s", "--timeout", "10s", "-s", script, "-H", "Host: " + l.host}
	for name, values := range l.header {
		for _, value := range values {
			args = append(args, "-H", name+": "+value)
		}
	}
	args = append(args, l.scheme+"://"+l.address+l.path, "--")
	if c := l.cycle; c != nil {
		args = append(args, c.header, c.prefix, c.values)
		if c.hosts != "" {
			args = append(args, c.hosts)
		}
	}
	out, err := b.generate(ctx, program, args)
	if err != nil {
		return s, err
	}
	return parseWrk(out, l.size)
}

// generate runs a load generator to its end, on the core for that.
func (b *bench) generate(ctx context.Context, program string, args []string) ([]byte, error) {
	if b.loadCore >= 0 {
		args = append([]string{"-c", strconv.Itoa(b.loadCore), program}, args...)
		program = "taskset"
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w:\n%s", program, err, out)
	}
	return out, nil
}

// parseWrk reads what wrk.lua prints at the end of a run. A run with an answer
// that was not as wanted counts for nothing. Connections that break are counted:
// Apache closes some of those that it has promised to keep.
func parseWrk(out []byte, size int) (s sample, err error) {
	var done struct {
		Requests, Duration, Bytes, Errors, Refused, P50, P99 int64 // times in microseconds
	}
	at := bytes.LastIndexByte(bytes.TrimSpace(out), '\n') + 1
	if err := json.Unmarshal(bytes.TrimSpace(out)[at:], &done); err != nil {
		return s, fmt.Errorf("wrk: %w in:\n%s", err, out)
	}
	switch {
	case done.Requests == 0:
		return s, fmt.Errorf("wrk: no request was answered:\n%s", out)
	case done.Refused > 0:
		return s, fmt.Errorf("wrk: %d answers were errors", done.Refused)
	case done.Errors > done.Requests/100:
		return s, fmt.Errorf("wrk: %d connections failed during %d requests", done.Errors, done.Requests)
	case done.Bytes/done.Requests < int64(size):
		return s, fmt.Errorf("wrk: answers have %d bytes, %d are wanted", done.Bytes/done.Requests, size)
	}
	micro := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
	return sample{requests: int(done.Requests), failed: int(done.Errors), elapsed: micro(done.Duration), bytes: done.Bytes, p50: micro(done.P50), p99: micro(done.P99)}, nil
}
