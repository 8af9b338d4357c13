// Package fetch answers the question: how is memory there by the time it is looked
// at? The processor is told ahead. That changes nothing but how long it takes, and
// where a processor cannot be told, nothing happens.
package fetch

import "unsafe"

const (
	// lineSize is how many bytes a processor fetches at once.
	lineSize = 64
	// mostLines are fetched of anything: behind them the processor has found out by
	// itself where this leads.
	mostLines = 32
)

// Of fetches what v points to, and nothing for nil. It does not wait.
func Of[T any](v *T) { bytes(unsafe.Pointer(v), unsafe.Sizeof(*v)) }

// Text is Of for the bytes of a text.
func Text(s string) { bytes(unsafe.Pointer(unsafe.StringData(s)), uintptr(len(s))) }

// bytes fetches n bytes from an address. One that is nobody's is no fault.
func bytes(at unsafe.Pointer, n uintptr) {
	if at != nil && n > 0 {
		lines(at, count(uintptr(at), n))
	}
}

// count is how many lines are fetched for n bytes from an address on.
func count(at, n uintptr) uintptr { return min((at%lineSize+n+lineSize-1)/lineSize, mostLines) }
