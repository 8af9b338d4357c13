package serve

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

const (
	// spareHeap is how much may be allocated beyond what is in use before it is
	// collected, where Go's own rule (as much again) allows less: a door holds a
	// few megabytes, allocates hundreds each second, and would collect all the time.
	// Where there is plenty of memory it is a part of that, up to mostSpare: going
	// through thousands of routes and sessions costs, too.
	spareHeap = 128 << 20
	mostSpare = 512 << 20
	sparePart = 16
	// mostPercent is the most that this may be, in percent of what is in use.
	mostPercent = 800
	// everySoOften is how often the memory is looked at.
	everySoOften = time.Second
	// quietBytes is how little is allocated in a second in which nothing much
	// happens.
	quietBytes = 1 << 20
	// worthBytes is how much must have been allocated for giving memory back.
	worthBytes = 4 << 20
	// mostForSessions is the most memory that sessions may take: more than a million.
	mostForSessions = 4 << 30
)

// keepMemory trades memory for time, until ctx ends: it collects less often while
// little is in use, and gives back what is not in use once it has been quiet for so
// long: a page that was given back is zeroed again before it is used, and on a
// virtual machine that gives its own memory back the host has to find one first.
// What the operator has set holds, GOGC and GOMEMLIMIT; without the latter, Go
// keeps to nine tenths of what the control group has.
func keepMemory(ctx context.Context, quiet time.Duration) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set {
		if limit := groupLimit("/sys/fs/cgroup/memory.max"); limit > 0 {
			debug.SetMemoryLimit(limit / 10 * 9)
		}
	}
	_, fixed := os.LookupEnv("GOGC")
	k, spare := &keeper{percent: 100, patience: int(quiet / everySoOften)}, spareFor(memory())
	tick := time.NewTicker(everySoOften)
	defer tick.Stop()
	for {
		live, allocated := heap()
		if !fixed {
			if percent := gcPercent(live, spare); percent != k.percent {
				debug.SetGCPercent(percent)
				k.percent = percent
			}
		}
		if k.quiet(allocated) {
			debug.FreeOSMemory()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// memory returns how much of it this process may have: what the machine has, or
// less where there is a limit. 0: nobody knows.
func memory() int64 {
	most := debug.SetMemoryLimit(-1)
	for _, limit := range []int64{groupLimit("/sys/fs/cgroup/memory.max"), machineMemory("/proc/meminfo")} {
		if limit > 0 {
			most = min(most, limit)
		}
	}
	if most == math.MaxInt64 {
		return 0
	}
	return most
}

// sessionRoom returns how much of the memory sessions may take at most. What does
// not fit is read from the store each time, which is several times as dear as all
// else that is done for a request.
func sessionRoom(memory int64) int { return int(min(memory/4, mostForSessions, math.MaxInt)) }

// spareFor returns how much of the memory may lie about.
func spareFor(memory int64) uint64 {
	return uint64(min(mostSpare, max(spareHeap, memory/sparePart)))
}

// gcPercent is how much may be allocated before the next collection, in percent
// of what is in use.
func gcPercent(live, spare uint64) int {
	return int(min(mostPercent, max(100, spare*100/max(live, 1))))
}

// keeper remembers what was seen a second ago.
type keeper struct {
	percent   int
	patience  int    // for how many quiet seconds nothing is given back
	still     int    // how many there were until now, in a row
	allocated uint64 // a second ago
	returned  uint64 // when memory was last given back
}

// quiet notes how much has been allocated since the start, and reports whether it
// is time to give memory back: once, after work, when nothing much has happened for
// long enough.
func (k *keeper) quiet(allocated uint64) bool {
	fresh := allocated - k.allocated
	k.allocated = allocated
	if fresh > quietBytes {
		k.still = 0
		return false
	}
	if k.still++; k.still < k.patience || allocated-k.returned < worthBytes {
		return false
	}
	k.returned = allocated
	return true
}

// heap returns what the last collection found in use, and all that was ever
// allocated, in bytes.
func heap() (live, allocated uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// groupLimit reads the memory limit of a control group (v2), 0 where there is none.
func groupLimit(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return limit
}

// machineMemory reads how much memory the machine has (proc_meminfo(5)), 0 where
// that is not known.
func machineMemory(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		if !ok {
			continue
		}
		number, _ := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		kibibytes, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0
		}
		return kibibytes << 10
	}
	return 0
}
