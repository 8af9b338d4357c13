package h1

import (
	"context"
	"errors"
	"fmt"
)

// Error is a request that got no answer.
type Error struct {
	// Err is what went wrong: the dialer's error, the cause of the context's end,
	// an error of the request's body or of the connection, or a remark on what the
	// upstream sent.
	Err error
	// sent tells that something of the request may have reached the upstream.
	sent bool
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// NeverSent reports whether nothing of the request can have reached anybody and
// its body was not touched, so that it can be sent elsewhere.
func (e *Error) NeverSent() bool { return !e.sent }

// timeoutError is an upstream that took too long.
type timeoutError struct{ what string }

// Error implements error.
func (e *timeoutError) Error() string { return e.what }

// Timeout implements net.Error.
func (e *timeoutError) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *timeoutError) Temporary() bool { return true }

// Is lets context.DeadlineExceeded match.
func (e *timeoutError) Is(err error) bool { return err == context.DeadlineExceeded }

var errHeaderTimeout = &timeoutError{"the upstream sent no answer in time"}

// badAnswer is an answer that is not HTTP/1.1, or not surely. It quotes nothing
// of what was sent.
type badAnswer struct{ what string }

// Error implements error.
func (e *badAnswer) Error() string { return "malformed answer: " + e.what }

func bad(format string, args ...any) error { return &badAnswer{fmt.Sprintf(format, args...)} }

var (
	errNotHTTP1    = &badAnswer{"it does not begin like HTTP/1.0 or HTTP/1.1"}
	errBareLF      = &badAnswer{"a line ends without CR"}
	errLongHead    = &badAnswer{"the headers are too long"}
	errManyFields  = &badAnswer{"there are too many header fields"}
	errLongTrailer = &badAnswer{"the trailer is too long"}
	errChunkSize   = &badAnswer{"the size of a chunk is no hexadecimal number alone"}
	errChunkEnd    = &badAnswer{"a chunk does not end where it should"}
	errInterim     = &badAnswer{"too many interim answers"}
	errUnasked     = &badAnswer{"the protocol is switched, which nobody asked for"}

	errShortBody = errors.New("the body of the request is shorter than announced")
)
