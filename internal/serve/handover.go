package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// How one doorward takes over from another without a failed request.
//
// The old one starts the new one, with its listeners. What only one of them can
// have, the state file and the audit log, stays where it is until the new one has
// shown that it can do everything else:
//
//	old                                new
//	offers listeners          ──▶      loads the configuration and its files, reads what
//	goes on serving                    providers and inventories say, opens what is new
//	                          ◀──      is prepared, or says why not and ends
//	closes log and state file ──▶      opens them, and serves
//	                          ◀──      serves
//	accepts nothing any more,
//	borrows log and state     ──▶      answers
//	ends what it has open              …
//	ends
//
// Between the third and the fifth line requests wait for the log and the state
// file, some milliseconds. If the new one ends before it serves, the old one opens
// them again and goes on as if nothing had happened.

const (
	// handoverVariable tells a process who has started it to take over: the id of
	// that process.
	handoverVariable = "DOORWARD_TAKES_OVER_FROM"
	// The files of a process that takes over: where it hears and says something,
	// and the listeners.
	hearFile, sayFile, firstListener = 3, 4, 5

	prepareLimit = time.Minute      // until the new one is prepared
	learnLimit   = 30 * time.Second // until it knows what the old one knows, within that
	openLimit    = 10 * time.Second // until it serves, once it may
	killLimit    = 5 * time.Second  // until it has ended by itself, where it does not
)

// word is what the two say to each other before the new one serves.
type word struct {
	Step  string
	Error string // why there is no next step

	// Places tells what the listeners are for, Providers which of them can be used
	// and have to be by the new one.
	Places    []place
	Providers []string
}

const (
	stepOffer    = "offer"
	stepPrepared = "prepared"
	stepOpen     = "open"
	stepServing  = "serving"
)

// talk is one end of what connects the two.
type talk struct {
	in, out *os.File
	words   *json.Decoder
}

func newTalk(in, out *os.File) *talk { return &talk{in, out, json.NewDecoder(in)} }

// Read implements io.Reader, for when the new one serves. Nobody has spoken out of
// turn, so that the decoder holds nothing back.
func (t *talk) Read(b []byte) (int, error) { return t.in.Read(b) }

// Write implements io.Writer.
func (t *talk) Write(b []byte) (int, error) { return t.out.Write(b) }

// Close implements io.Closer.
func (t *talk) Close() error { return errors.Join(t.in.Close(), t.out.Close()) }

func (t *talk) say(w word) error {
	text, err := json.Marshal(w)
	if err == nil {
		_, err = t.out.Write(append(text, '\n'))
	}
	return err
}

// hear waits for one step. What cannot go on says why.
func (t *talk) hear(step string) (word, error) {
	var w word
	switch err := t.words.Decode(&w); {
	case err != nil:
		return w, err
	case w.Error != "":
		return w, errors.New(w.Error)
	case w.Step != step:
		return w, fmt.Errorf("%q was said in place of %q", w.Step, step)
	}
	return w, nil
}
