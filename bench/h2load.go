package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// streamsPerConnection is how many requests an HTTP/2 connection has under way,
// as a browser that loads a page has several.
const streamsPerConnection = 4

// h2load loads over HTTP/2 with TLS.
func (b *bench) h2load(ctx context.Context, l *load, d time.Duration) (s sample, err error) {
	program, err := find("h2load", "nghttp2-client")
	if err != nil {
		return s, err
	}
	times := filepath.Join(b.dir, "h2load.log")
	os.Remove(times) // h2load appends
	args := []string{"-t1", fmt.Sprintf("-c%d", inFlight/streamsPerConnection), fmt.Sprintf("-m%d", streamsPerConnection),
		"-D", strconv.FormatFloat(d.Seconds(), 'f', -1, 64), "--connect-to", l.address, "--log-file", times}
	for name, values := range l.header {
		for _, value := range values {
			args = append(args, "-H", strings.ToLower(name)+": "+value)
		}
	}
	out, err := b.generate(ctx, program, append(args, l.scheme+"://"+l.host+l.path))
	if err != nil {
		return s, err
	}
	log, err := os.ReadFile(times)
	if err != nil {
		return s, err
	}
	return parseH2load(out, log, l.size)
}

// parseH2load reads the summary of h2load and the times it has logged, one
// request in each line: when it began and how long it took, both in
// microseconds, with the status between.
func parseH2load(out, log []byte, size int) (s sample, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "finished in "):
			text, _, _ := strings.Cut(strings.TrimPrefix(line, "finished in "), ",")
			if s.elapsed, err = time.ParseDuration(text); err != nil {
				return s, fmt.Errorf("h2load: %w in %q", err, line)
			}
		case strings.HasPrefix(line, "requests: "):
			var total, started, done, succeeded, failed, errored, timeout int
			if _, err := fmt.Sscanf(line, "requests: %d total, %d started, %d done, %d succeeded, %d failed, %d errored, %d timeout",
				&total, &started, &done, &succeeded, &failed, &errored, &timeout); err != nil {
				return s, fmt.Errorf("h2load: %w in %q", err, line)
			}
			// Those that the end of the time cuts off are no failures.
			if done != succeeded || timeout > 0 || errored+failed > inFlight {
				return s, fmt.Errorf("h2load: %s", line)
			}
			s.requests = succeeded
		case strings.HasPrefix(line, "traffic: "):
			data, ok := strings.CutSuffix(line, ") data")
			at := strings.LastIndexByte(data, '(')
			if !ok || at < 0 {
				return s, fmt.Errorf("h2load: %q", line)
			}
			if s.bytes, err = strconv.ParseInt(data[at+1:], 10, 64); err != nil {
				return s, fmt.Errorf("h2load: %w in %q", err, line)
			}
		}
	}
	if s.requests == 0 || s.elapsed == 0 {
		return s, fmt.Errorf("h2load: no request was answered:\n%s", out)
	}
	if s.bytes/int64(s.requests) < int64(size) {
		return s, fmt.Errorf("h2load: answers have %d bytes, %d are wanted", s.bytes/int64(s.requests), size)
	}
	var took []time.Duration
	for line := range bytes.Lines(log) {
		fields := bytes.Fields(line)
		if len(fields) < 3 || string(fields[1]) != "200" {
			continue
		}
		micros, err := strconv.ParseInt(string(fields[2]), 10, 64)
		if err != nil {
			return s, fmt.Errorf("h2load: %w in its log", err)
		}
		took = append(took, time.Duration(micros)*time.Microsecond)
	}
	if len(took) == 0 {
		return s, fmt.Errorf("h2load: it has logged no answer")
	}
	s.p50, s.p99 = percentiles(took)
	return s, nil
}

// percentiles sorts what answers took; there is at least one.
func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}
