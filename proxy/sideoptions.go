package proxy

import (
	"crypto/tls"
	"log/slog"
)

// SideOptions are what the server of a side door is made of that speaks a
// protocol of its own. Door is required.
type SideOptions struct {
	// Door decides.
	Door *Door
	// TLS is what the listener speaks. Default: plaintext.
	TLS *tls.Config
	// Begin is told of each question, and its result of the end of it. May be nil.
	Begin func() (end func())
	// Log gets what the operator has to know. Default: none.
	Log *slog.Logger
}

// WithDefaults returns options of which Begin and Log can be called.
func (o SideOptions) WithDefaults() SideOptions {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Begin == nil {
		o.Begin = func() func() { return func() {} }
	}
	return o
}
