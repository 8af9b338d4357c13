//go:build unix

package fetch

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

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
