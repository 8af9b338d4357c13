//go:build amd64 || arm64

package fetch

import "unsafe"

// lines fetches n lines, at least one, from that of an address. The addresses go
// to the processor and nowhere else, so that nothing escapes.
//
//go:noescape
func lines(at unsafe.Pointer, n uintptr)
