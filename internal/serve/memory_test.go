package serve

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestCollectingLessOften(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 16 << 20: 800, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 4 << 30: 100} {
		if got := gcPercent(live, spareFor(1<<30)); got != want {
			t.Errorf("%d MiB in use: %d %%, want %d", live>>20, got, want)
		}
	}
	for memory, want := range map[int64]uint64{0: 128 << 20, 2 << 30: 128 << 20, 3 << 30: 192 << 20, 64 << 30: 512 << 20} {
		if got := spareFor(memory); got != want {
			t.Errorf("%d MiB of memory: %d to spare, want %d", memory>>20, got, want)
		}
	}
}

// Memory is given back once, when work has ended for a while, and again only after
// more work.
func TestGivingBackWhenQuiet(t *testing.T) {
	k := &keeper{patience: 2}
	for i, step := range []struct {
		allocated uint64
		want      bool
	}{
		{1 << 20, false},                // too little to be worth it
		{200 << 20, false},              // at work
		{400 << 20, false},              // still
		{400<<20 + 1000, false},         // quiet, but not for long
		{402 << 20, false},              // at work again
		{402<<20 + 1000, false},         // quiet
		{402<<20 + 2000, true},          // for long enough
		{402<<20 + 3000, false},         // it was given back
		{403 << 20, false},              // little has happened since
		{407 << 20, false},              // at work
		{407<<20 + quietBytes, false},   // quiet enough
		{407<<20 + 2*quietBytes, true},  // for long enough
		{407<<20 + 3*quietBytes, false}, // again too little
	} {
		if got := k.quiet(step.allocated); got != step.want {
			t.Errorf("step %d: %t", i+1, got)
		}
	}
}

func TestMemoryLimitOfTheGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.max")
	for text, want := range map[string]int64{"max\n": 0, "1073741824\n": 1 << 30, "": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := groupLimit(path); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	if groupLimit(path+"x") != 0 {
		t.Error("a group that is not there has a limit")
	}
	if live, allocated := heap(); allocated == 0 || live > allocated {
		t.Errorf("%d in use of %d ever allocated", live, allocated)
	}
}

func TestMemoryOfTheMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meminfo")
	for text, want := range map[string]int64{"MemTotal:       24683636 kB\nMemFree: 1 kB\n": 24683636 << 10, "MemFree: 1 kB\n": 0, "MemTotal: much\n": 0, "": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := machineMemory(path); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	if machineMemory(path+"x") != 0 {
		t.Error("a file that is not there says something")
	}
}

// Sessions take a part of what there is, also of a limit that somebody has set.
func TestRoomForSessions(t *testing.T) {
	was := debug.SetMemoryLimit(160 << 20)
	defer debug.SetMemoryLimit(was)
	if got := sessionRoom(memory()); got > 40<<20 || got < 1<<20 {
		t.Errorf("%d bytes", got)
	}
	if got := sessionRoom(0); got != 0 {
		t.Errorf("%d bytes of what nobody knows", got)
	}
	if got := sessionRoom(12 << 30); got < 1<<30 { // also where an int has 32 bits
		t.Errorf("%d bytes of 12 GiB", got)
	}
}
