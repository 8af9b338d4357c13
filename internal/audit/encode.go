package audit

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/doorward/doorward/internal/access"
)

// MaxLine is the length of the longest line of an audit log in bytes, its
// newline included. Read refuses longer ones.
const MaxLine = 1 << 20

// linkRoom is kept free in every line for its link.
const linkRoom = 512

// encode returns the event as one line. If that cannot be done in full, it
// returns both an error and the best line there is: first without the claims,
// then with nothing but what identifies the event.
func encode(e *access.Event) (encoded, error) {
	line, err := marshal(e)
	if err == nil {
		return line, nil
	}
	short := *e
	short.Incomplete = true
	short.Note = "recorded without claims: " + err.Error()
	if e.Request != nil {
		request := *e.Request
		request.Identity.Claims = nil
		short.Request = &request
		if line, again := marshal(&short); again == nil {
			return line, err
		}
	}
	line, again := marshal(&access.Event{Kind: e.Kind, Time: e.Time, Reason: access.InternalError, RequestID: clip(requestID(e)),
		Actor: clip(e.Actor), Why: clip(e.Why), Session: clip(e.Session), Note: "the event could not be recorded in full: " + err.Error()})
	return line, errors.Join(err, again)
}

func marshal(e *access.Event) (encoded, error) {
	enc := newEncoder()
	defer enc.free()
	enc.event(e)
	enc.to = append(enc.to, '\n')
	if enc.err != nil {
		return encoded{}, enc.err
	}
	if size := (encoded{enc.kept.begin, enc.to}).size(); size > MaxLine-linkRoom {
		return encoded{}, fmt.Errorf("%d bytes are more than a line may have", size)
	}
	rest := enc.hidden()
	if !e.Incomplete && !bytes.Equal(rest, enc.to) {
		marked := *e
		marked.Incomplete = true
		return marshal(&marked)
	}
	return encoded{enc.kept.begin, append(takeLine(len(rest)), rest...)}, nil
}

// freeLines are lines that were written.
var freeLines sync.Pool // of *[]byte

// takeLine returns an empty line with room for so many bytes.
func takeLine(size int) []byte {
	if have, _ := freeLines.Get().(*[]byte); have != nil && cap(*have) >= size {
		return (*have)[:0]
	}
	return make([]byte, 0, size)
}

// freeLine ends the use of a line.
func freeLine(line []byte) {
	if cap(line) <= keptBuffer {
		freeLines.Put(&line)
	}
}

func clip(s string) string { return s[:min(len(s), 200)] }
