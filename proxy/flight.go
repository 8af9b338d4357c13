package proxy

import (
	"github.com/doorward/doorward/internal/await"
	"github.com/doorward/doorward/internal/h1"
)

// flight is the context of a request that is open: it ends with the visitor's
// request, and when access does.
type flight struct {
	await.Context
	courier *courier
}

// Value implements context.Context.
func (f *flight) Value(key any) any {
	if key == (h1.InterimKey{}) && f.courier != nil {
		return h1.Interim(f.courier.interim)
	}
	return f.Context.Value(key)
}
