package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/doorward/doorward/internal/access"
)

// Read yields the events of an audit log in order. A line that is no event
// yields an error that names it, and reading goes on: after a crash, one line
// may be cut off. An error of r ends it.
func Read(r io.Reader) iter.Seq2[*access.Event, error] {
	return func(yield func(*access.Event, error) bool) {
		in := bufio.NewReaderSize(r, MaxLine)
		for number := 1; ; number++ {
			line, err := readLine(in)
			if len(line) > 0 || errors.Is(err, ErrTooLong) {
				event, bad := decode(line, err)
				if bad != nil {
					bad = fmt.Errorf("line %d: %w", number, bad)
				}
				if !yield(event, bad) {
					return
				}
			}
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil && !errors.Is(err, ErrTooLong):
				yield(nil, fmt.Errorf("line %d: %w", number, err))
				return
			}
		}
	}
}

// lines yields the lines of r without surrounding blanks. Lines that are too
// long to be records are left out.
func lines(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewReaderSize(r, MaxLine)
		for {
			line, err := readLine(in)
			if len(line) > 0 && !yield(line, nil) {
				return
			}
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil && !errors.Is(err, ErrTooLong):
				yield(nil, err)
				return
			}
		}
	}
}

// ErrTooLong marks a line that no event can have written.
var ErrTooLong = fmt.Errorf("longer than %d bytes", MaxLine)

// readLine returns the next line without surrounding blanks. Of a line that is
// too long it reads the whole and returns ErrTooLong.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSpace(line), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, ErrTooLong
}

// Begins reports whether a line begins as an event does, whatever became of the
// rest.
func Begins(line []byte) bool {
	return bytes.HasPrefix(line, []byte(`{"kind":"`)) || bytes.HasPrefix(line, []byte(openGroups))
}

func decode(line []byte, err error) (*access.Event, error) {
	if errors.Is(err, ErrTooLong) {
		return nil, ErrTooLong
	}
	event := new(access.Event)
	if bad := json.Unmarshal(line, event); bad != nil {
		return nil, fmt.Errorf("no audit event: %w", bad)
	}
	if event.Kind == "" {
		return nil, errors.New("no audit event: it has no kind")
	}
	return event, nil
}
