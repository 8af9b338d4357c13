package access

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is one mistake in the configuration. Owning packages report the Path of
// the field; package config adds file, line and column.
type Fault struct {
	// Path is the field, as in "routes[2].allow[0].when".
	Path string
	// Text says what is wrong.
	Text string
	// Cure says what to do about it; optional.
	Cure string
}

// Faults collects mistakes under a common path, so that validation can report
// all of them in one run.
type Faults struct {
	at   string
	list *[]Fault
}

// NewFaults returns an empty collection rooted at path.
func NewFaults(path string) Faults { return Faults{at: path, list: new([]Fault)} }

// At returns a view that reports below the given field, as in
// f.At("allow[%d]", 2).
func (f Faults) At(format string, args ...any) Faults {
	field := fmt.Sprintf(format, args...)
	if f.at != "" && field != "" && !strings.HasPrefix(field, "[") {
		field = "." + field
	}
	return Faults{at: f.at + field, list: f.list}
}

// Add reports one mistake at the view's own path.
func (f Faults) Add(cure, format string, args ...any) {
	*f.list = append(*f.list, Fault{Path: f.at, Text: fmt.Sprintf(format, args...), Cure: cure})
}

// List returns everything reported so far, through this view or another of the
// same collection.
func (f Faults) List() []Fault { return *f.list }

// Error is a failure with two readers: the operator reads Err in the log, the
// visitor reads the text of Reason and nothing else.
type Error struct {
	Reason Reason
	Err    error
}

// Because wraps err for the operator behind a reason for the visitor.
func Because(reason Reason, err error) *Error { return &Error{Reason: reason, Err: err} }

// Becausef is Because with a formatted message; %w wraps.
func Becausef(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Error implements error, for the operator.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Err.Error()
}

// Unwrap returns the operator's error.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason an error carries, or InternalError for an error
// that carries none. For nil it returns the empty reason.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return InternalError
}
