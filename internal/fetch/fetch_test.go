package fetch

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// Every line that holds a part of something is fetched, up to some, and no other.
func TestLinesOfSomething(t *testing.T) {
	for _, c := range []struct{ at, size, lines uintptr }{
		{0, 1, 1}, {0, 64, 1}, {0, 65, 2}, {63, 1, 1}, {63, 2, 2}, {1, 64, 2}, {64, 128, 2}, {100, 200, 4}, {0, 1 << 20, mostLines},
	} {
		if n := count(c.at, c.size); n != c.lines {
			t.Errorf("%d bytes at %d are in %d lines, not %d", c.size, c.at, n, c.lines)
		}
	}
}

// Fetching looks at nothing: neither nil nor the end of the memory is a fault.
func TestNothingIsAFault(t *testing.T) {
	Of[int](nil)
	Of(&struct{}{})
	Text("")
	Text(strings.Repeat("x", 1<<10))
	page := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, page, syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	last := (*byte)(unsafe.Pointer(&mem[page-1]))
	if err := syscall.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	Of(last) // nobody's any more
	Of((*[256]byte)(unsafe.Pointer(last)))
}

// BenchmarkOf is what it costs to ask for something that is there.
func BenchmarkOf(b *testing.B) {
	var memory [1 << 10]byte
	for _, size := range []int{64, 512} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			text := unsafe.String(&memory[0], size)
			for b.Loop() {
				Text(text)
			}
		})
	}
}
