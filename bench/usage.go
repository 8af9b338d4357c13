package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of processor time in /proc (USER_HZ), which is the same
// on every architecture that Go runs on with Linux.
const clockTick = 10 * time.Millisecond

// usage is what a program has used: it and everything it has started.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes
}

// usageOf reads the usage of a process and its descendants. Memory that several
// of them share counts once (Pss); for a single process that is its RSS, nearly.
func usageOf(proc string, pid int) (u usage, err error) {
	tree, err := descendants(proc, pid)
	if err != nil {
		return u, err
	}
	for _, id := range tree {
		dir := filepath.Join(proc, strconv.Itoa(id))
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			if id != pid {
				continue // it has ended; its parent's figures hold its time
			}
			return u, err
		}
		s, err := parseStat(stat)
		if err != nil {
			return u, err
		}
		u.cpu += s.cpu
		rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			continue // as above
		}
		pss, err := parsePss(rollup)
		if err != nil {
			return u, err
		}
		u.memory += pss
	}
	return u, nil
}

// stat is what matters of /proc/PID/stat.
type stat struct {
	parent int
	// cpu is the time of the process and of those children that have ended and
	// were waited for.
	cpu time.Duration
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name in it may hold
// blanks and parentheses.
func parseStat(text []byte) (s stat, err error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return s, fmt.Errorf("no name in %q", text)
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 15 {
		return s, fmt.Errorf("%d fields behind the name in %q", len(fields), text)
	}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return s, err
	}
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return s, err
		}
		s.cpu += time.Duration(ticks) * clockTick
	}
	return s, nil
}

// parsePss reads /proc/PID/smaps_rollup and returns bytes.
func parsePss(text []byte) (int64, error) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		value, ok := strings.CutPrefix(lines.Text(), "Pss:")
		if !ok {
			continue
		}
		number, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !ok {
			return 0, fmt.Errorf("%q is not in kB", value)
		}
		n, err := strconv.ParseInt(number, 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("no Pss in %q", text)
}

// descendants returns a process and all that have come from it.
func descendants(proc string, pid int) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, entry.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		if s, err := parseStat(text); err == nil {
			children[s.parent] = append(children[s.parent], id)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}
