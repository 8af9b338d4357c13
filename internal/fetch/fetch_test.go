package fetch

import (
	"fmt"
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
