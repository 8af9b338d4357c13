package devicecheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

// readJSON reads an inventory that is an array of records, or an object whose
// only member `devices` is one.
//
// It walks the tokens itself: decoding into structs would match member names
// without regard to case and let the last of two equal names win, so that a
// reviewer and the program could read different records.
func readJSON(b *builder, data []byte) {
	w := &jsonWalk{b: b, data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	w.dec.UseNumber()
	if at := invalidUTF8(data); at >= 0 {
		line, column := w.position(at)
		b.fault(line, column, "the file is not UTF-8 (save it as UTF-8)")
		return
	}
	if err := w.file(); err != nil && !errors.Is(err, errNoted) {
		line, column := w.position(w.at)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file ends too early (is it still being written? rename complete files into place)")
		}
		b.fault(line, column, "%s", err)
	}
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for at := 0; at < len(data); {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
	return -1
}

// jsonWalk reads tokens and knows where they stand. Its methods return an error
// only where reading cannot go on; other mistakes are noted in the builder.
type jsonWalk struct {
	b    *builder
	data []byte
	dec  *json.Decoder
	at   int // offset of the token read last

	// Where position was asked last, so that counting lines stays linear.
	counted, line, lineStart int
}

// next reads one token and remembers where it begins.
func (w *jsonWalk) next() (json.Token, error) {
	end := int(w.dec.InputOffset())
	for end < len(w.data) && bytes.IndexByte([]byte(" \t\r\n,:"), w.data[end]) >= 0 {
		end++
	}
	w.at = end
	token, err := w.dec.Token()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return nil, fmt.Errorf("%s (correct the JSON syntax)", syntax)
	}
	return token, err
}

// position returns line and column, from 1, of an offset. Offsets must be asked
// for in ascending order.
func (w *jsonWalk) position(at int) (line, column int) {
	for {
		n := bytes.IndexByte(w.data[w.counted:at], '\n')
		if n < 0 {
			break
		}
		w.counted += n + 1
		w.line++
		w.lineStart = w.counted
	}
	return w.line, at - w.lineStart + 1
}

// errNoted ends the reading after a mistake that is already in the builder.
var errNoted = errors.New("noted")

// fault notes a mistake in the token read last.
func (w *jsonWalk) fault(format string, args ...any) {
	line, column := w.position(w.at)
	w.b.fault(line, column, "record %d: %s", len(w.b.inv.devices)+1, fmt.Sprintf(format, args...))
}

func (w *jsonWalk) file() error {
	token, err := w.next()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('['):
		err = w.records()
	case json.Delim('{'):
		err = w.object()
	default:
		err = errors.New("the file is neither an array of devices nor an object (write [{\"id\": …}, …])")
	}
	if err != nil {
		return err
	}
	if _, err := w.next(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the end of the inventory (remove it)")
	}
	return nil
}

func (w *jsonWalk) object() error {
	for seen := false; ; seen = true {
		token, err := w.next()
		if err != nil {
			return err
		}
		if token == json.Delim('}') {
			if !seen {
				return errors.New("the object has no member \"devices\" (write {\"devices\": […]})")
			}
			return nil
		}
		if name, _ := token.(string); name != "devices" || seen {
			return fmt.Errorf("member %q does not belong here (the object has one member, \"devices\")", clip(name))
		}
		if token, err = w.next(); err != nil {
			return err
		}
		if token != json.Delim('[') {
			return errors.New("\"devices\" is no array (write {\"devices\": […]})")
		}
		if err := w.records(); err != nil {
			return err
		}
	}
}

func (w *jsonWalk) records() error {
	for {
		token, err := w.next()
		if err != nil {
			return err
		}
		if token == json.Delim(']') {
			return nil
		}
		if token != json.Delim('{') {
			return fmt.Errorf("record %d is no object (write {\"id\": …})", len(w.b.inv.devices)+1)
		}
		line, column := w.position(w.at)
		if w.b.full(line, column) || w.b.enough() {
			return errNoted
		}
		var d access.Device
		if err := w.record(&d); err != nil {
			return err
		}
		w.b.add(d, line, column)
	}
}

func (w *jsonWalk) record(d *access.Device) error {
	var seen uint64 // one bit per field
	for !w.b.enough() {
		token, err := w.next()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok {
			return nil // the closing brace: the decoder lets nothing else pass
		}
		n := fieldIndex(name)
		if n < 0 {
			w.fault("unknown field %q (the fields are %s)", clip(name), fieldNames)
			return errNoted
		}
		if seen&(1<<n) != 0 {
			w.fault("field %s is there twice (remove one of them)", name)
		}
		seen |= 1 << n
		if err := w.value(d, &fields[n]); err != nil {
			return err
		}
	}
	return errNoted
}

// value reads the value of one field.
func (w *jsonWalk) value(d *access.Device, f *field) error {
	token, err := w.next()
	if err != nil {
		return err
	}
	if f.name == reasonsField {
		return w.reasons(d, token)
	}
	switch v := token.(type) {
	case nil: // unknown
	case string:
		if err := f.apply(d, v); err != nil {
			w.fault("%s: %s", f.name, err)
		}
	case bool:
		if !f.fact {
			w.fault("%s: %t is no text (write it in quotes)", f.name, v)
			break
		}
		return f.set(d, strconv.FormatBool(v))
	case json.Number:
		w.fault("%s: %s is a number (write it in quotes)", f.name, clip(v.String()))
	default:
		w.fault("%s: a list or an object does not belong here (write one value)", f.name)
		return errNoted
	}
	return nil
}

// reasons reads a list of texts. token is its opening bracket.
func (w *jsonWalk) reasons(d *access.Device, token json.Token) error {
	if token == nil {
		return nil
	}
	if token != json.Delim('[') {
		w.fault("reasons: this is no list (write [\"…\", \"…\"])")
		return errNoted
	}
	for !w.b.enough() {
		token, err := w.next()
		if err != nil {
			return err
		}
		switch v := token.(type) {
		case json.Delim:
			if v == ']' {
				return nil
			}
			w.fault("reasons: a list or an object does not belong here (write texts in quotes)")
			return errNoted
		case string:
			if err := addReason(d, v); err != nil {
				w.fault("reasons: %s", err)
			}
		default:
			w.fault("reasons: %v is no text (write it in quotes)", v)
		}
	}
	return errNoted
}
