package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The formats.
const (
	Native = "native"
	OCSF   = "ocsf"
	ECS    = "ecs"
)

// Known reports whether there is a format of this name. The empty one is Native.
func Known(name string) bool { return name == "" || name == Native || name == OCSF || name == ECS }

// Options are what an event does not tell.
type Options struct {
	// Version is that of Doorward.
	Version string
	// Host is the name of this machine; empty: it is not said.
	Host string
}

// Event is an audit event as its JSON has it. Formats take out of it what they
// have a word for; the rest is what they do not.
type Event map[string]any

// Parse reads one line of an audit log.
func Parse(line []byte) (Event, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var e Event
	if err := d.Decode(&e); err != nil {
		return nil, fmt.Errorf("no audit event: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("no audit event: something follows it")
	}
	if e.Text("kind") == "" {
		return nil, errors.New("no audit event: it has no kind")
	}
	return e, nil
}

// Encode returns the event in a format, as one JSON object. It uses the event up.
func Encode(name string, e Event, opts Options) ([]byte, error) {
	var record map[string]any
	switch name {
	case "", Native:
		record = e
	case OCSF:
		record = ocsf(e, opts)
	case ECS:
		record = ecs(e, opts)
	default:
		return nil, fmt.Errorf("%q is no format", name)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(record); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// find returns the object that holds the last part of a path, and that part.
func (e Event) find(path string) (map[string]any, string) {
	at := map[string]any(e)
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		at, _ = at[part].(map[string]any)
	}
	return at, parts[len(parts)-1]
}

// Get returns what stands at a path such as "request.identity.sub", or nil.
func (e Event) Get(path string) any {
	at, name := e.find(path)
	return at[name]
}

// Text returns the text at a path, or "".
func (e Event) Text(path string) string {
	s, _ := e.Get(path).(string)
	return s
}

// Number returns the whole number at a path, or 0.
func (e Event) Number(path string) int64 {
	n, _ := e.Get(path).(json.Number)
	i, _ := n.Int64()
	return i
}

// Time is when the event happened; zero if it does not say.
func (e Event) Time() time.Time {
	at, _ := time.Parse(time.RFC3339Nano, e.Text("time"))
	return at
}

// take removes what stands at a path and returns it, nil if there is nothing.
func (e Event) take(path string) any {
	at, name := e.find(path)
	value := at[name]
	delete(at, name)
	return value
}

// mapping says what a member of an event is called elsewhere.
type mapping struct{ from, to string }

// move takes what the table names out of the event into a record, unless
// something else stands there already.
func (e Event) move(to map[string]any, table []mapping) {
	for _, m := range table {
		if Event(to).Get(m.to) == nil {
			put(to, m.to, e.take(m.from))
		}
	}
}

// rest is what nobody took, without objects that became empty.
func (e Event) rest() map[string]any {
	prune(e)
	return e
}

func prune(object map[string]any) {
	for name, value := range object {
		if inner, ok := value.(map[string]any); ok {
			prune(inner)
		}
		if value = object[name]; empty(value) {
			delete(object, name)
		}
	}
}

func empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// put sets a member at a path and makes the objects on the way.
func put(object map[string]any, path string, value any) {
	if empty(value) {
		return
	}
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		inner, ok := object[part].(map[string]any)
		if !ok {
			inner = map[string]any{}
			object[part] = inner
		}
		object = inner
	}
	object[parts[len(parts)-1]] = value
}

// Severity is how much an event deserves attention.
type Severity int

// The severities, which are those of OCSF.
const (
	Informational Severity = 1
	Low           Severity = 2
	Medium        Severity = 3
	High          Severity = 4
)

// Severity judges an event: what was let in is information, what was refused is
// low, a failure on our side medium, and what may be an attack or a gap in the
// record high.
func (e Event) Severity() Severity {
	switch reason := e.reason(); {
	case e.Text("kind") == "audit":
		return High
	case strings.HasSuffix(reason, "_forged") || reason == "login_mix_up" || reason == "token_binding_mismatch":
		return High
	case strings.HasSuffix(reason, "_unavailable") || reason == "internal_error":
		return Medium
	case e.refused():
		return Low
	}
	return Informational
}

// reason is the one word for why it ended as it did.
func (e Event) reason() string { return e.Text(e.reasonAt()) }

func (e Event) reasonAt() string {
	for _, path := range []string{"response.reason", "decision.reason"} {
		if e.Text(path) != "" {
			return path
		}
	}
	return "reason"
}

// good are the reasons of events in which nothing went wrong.
var good = map[string]bool{"": true, "allowed": true, "public": true, "signal_applied": true, "signal_ignored": true}

// refused reports whether the event is one of something that did not work.
func (e Event) refused() bool {
	if outcome := e.Text("decision.outcome"); outcome != "" {
		return outcome != "allow"
	}
	return !good[e.reason()]
}
