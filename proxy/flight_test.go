package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/textproto"
	"testing"
	"testing/synctest"

	"github.com/doorward/doorward/internal/h1"
)

func TestFlightEndsWithTheVisitorsRequestOrBeforeIt(t *testing.T) {
	type key struct{}
	errCut := errors.New("cut")
	for name, end := range map[string]func(visitor context.CancelCauseFunc, f *flight){
		"visitor": func(visitor context.CancelCauseFunc, _ *flight) { visitor(errCut) },
		"cut":     func(_ context.CancelCauseFunc, f *flight) { f.cut(errCut) },
	} {
		for _, before := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				parent, visitor := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
				defer visitor(nil)
				f := &flight{Context: parent}
				defer f.leave()
				if f.Err() != nil || f.Value(key{}) != "value" {
					t.Fatalf("%s: it begins with %v, %v", name, f.Err(), f.Value(key{}))
				}
				told := false
				wait := func() (derived context.Context) {
					derived, cancel := context.WithCancel(f)
					t.Cleanup(cancel)
					context.AfterFunc(f, func() { told = true })
					return derived
				}
				var derived context.Context
				if before {
					derived = wait()
				}
				end(visitor, f)
				if !before {
					derived = wait()
				}
				synctest.Wait()
				<-f.Done()
				<-derived.Done()
				if f.Err() != context.Canceled || derived.Err() != context.Canceled || context.Cause(f) != errCut || context.Cause(derived) != errCut || !told {
					t.Errorf("%s: %v because of %v, derived %v because of %v, told: %t", name, f.Err(), context.Cause(f), derived.Err(), context.Cause(derived), told)
				}
			})
		}
	}
}

func TestFlightThatNobodyWaitedForLeavesNothing(t *testing.T) {
	f := &flight{Context: t.Context()}
	f.leave()
	if f.real != nil || f.Err() != nil {
		t.Errorf("%v, %v", f.real, f.Err())
	}
	f.courier = &courier{passage: &passage{in: &http.Request{ProtoMajor: 1}}}
	told, ok := f.Value(h1.InterimKey{}).(h1.Interim)
	if !ok || told(103, textproto.MIMEHeader{}) != nil {
		t.Error("interim answers are told to nobody")
	}
}
