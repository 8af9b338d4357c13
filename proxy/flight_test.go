package proxy

import (
	"net/http"
	"net/textproto"
	"testing"

	"github.com/doorward/doorward/internal/await"
	"github.com/doorward/doorward/internal/h1"
)

func TestFlightTellsTheCourierOfInterimAnswers(t *testing.T) {
	f := &flight{Context: await.Context{Context: t.Context()}}
	if told := f.Value(h1.InterimKey{}); told != nil {
		t.Errorf("there is no courier, and %T is told", told)
	}
	f.courier = &courier{passage: &passage{in: &http.Request{ProtoMajor: 1}}} // of HTTP/1.0, which gets none
	told, ok := f.Value(h1.InterimKey{}).(h1.Interim)
	if !ok || told(103, textproto.MIMEHeader{}) != nil {
		t.Error("interim answers are told to nobody")
	}
}
