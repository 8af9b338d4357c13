package devicecheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxNodes = 100_000 // values in one record, or around the records of a page
	maxDepth = 32
	maxSteps = 16 // of a path
)

// jsonPath leads from a JSON object to one of its values, by member names.
type jsonPath []string

// parsePath reads a path such as `compliance.state`. A dot in a name is written
// `\.`, a backslash `\\`. The empty path is the value itself.
func parsePath(text string) (jsonPath, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxField {
		return nil, errors.New("the path is too long")
	}
	var path jsonPath
	var name strings.Builder
	for n := 0; n < len(text); n++ {
		switch c := text[n]; {
		case c == '\\':
			if n++; n == len(text) || text[n] != '.' && text[n] != '\\' {
				return nil, errors.New("a backslash stands before something other than a dot or a backslash")
			}
			name.WriteByte(text[n])
			continue
		case c != '.':
			name.WriteByte(c)
			continue
		}
		path = append(path, name.String())
		name.Reset()
	}
	path = append(path, name.String())
	for _, step := range path {
		if step == "" {
			return nil, errors.New("the path has an empty step")
		}
	}
	if len(path) > maxSteps {
		return nil, fmt.Errorf("the path has more than %d steps", maxSteps)
	}
	return path, nil
}

// in returns the value that the path leads to, nil if it leads nowhere.
func (p jsonPath) in(value any) any {
	for _, step := range p {
		object, _ := value.(map[string]any)
		value = object[step]
	}
	return value
}

// readPage reads one JSON document, hands each element of the array at items to
// each, and returns the document without that array. Only one record is in
// memory at a time. Two members of one name are a fault: readers differ in
// which of them counts.
func readPage(body []byte, items jsonPath, each func(record map[string]any) error) (any, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the answer is not UTF-8")
	}
	t := &treeReader{dec: json.NewDecoder(bytes.NewReader(body)), items: items, each: each}
	t.dec.UseNumber()
	around, err := t.value(0, 0)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the answer ends too early")
	case err != nil:
		return nil, err
	}
	if _, err := t.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the end of the answer")
	}
	if !t.found {
		return around, fmt.Errorf("%w %q", errNoArray, strings.Join(items, "."))
	}
	return around, nil
}

// errNoArray is the fault of a document that is whole but lacks the records.
var errNoArray = errors.New("the answer has no array")

// readObject reads one JSON object whole.
func readObject(body []byte) (map[string]any, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the answer is not UTF-8")
	}
	t := &treeReader{dec: json.NewDecoder(bytes.NewReader(body))}
	t.dec.UseNumber()
	value, err := t.value(0, -1)
	if err != nil {
		return nil, err
	}
	if _, err := t.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the end of the answer")
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("the answer is no object")
	}
	return object, nil
}

type treeReader struct {
	dec   *json.Decoder
	items jsonPath
	each  func(map[string]any) error
	nodes int
	found bool
}

// value reads one value. on is how many steps of items lead to it, -1 if it is
// beside that path.
func (t *treeReader) value(depth, on int) (any, error) {
	token, err := t.dec.Token()
	if err != nil {
		return nil, err
	}
	if t.nodes++; t.nodes > maxNodes || depth > maxDepth {
		return nil, errors.New("the answer is nested too deeply, or a record is too large")
	}
	switch token {
	case json.Delim('{'):
		return t.object(depth, on)
	case json.Delim('['):
		if on == len(t.items) {
			t.found = true
			return nil, t.records(depth)
		}
		return t.list(depth)
	default:
		return token, nil
	}
}

func (t *treeReader) object(depth, on int) (any, error) {
	object := map[string]any{}
	for t.dec.More() {
		token, err := t.dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("member %q is there twice", clip(name))
		}
		next := -1
		if on >= 0 && on < len(t.items) && t.items[on] == name {
			next = on + 1
		}
		if object[name], err = t.value(depth+1, next); err != nil {
			return nil, err
		}
	}
	_, err := t.dec.Token()
	return object, err
}

func (t *treeReader) list(depth int) (any, error) {
	list := []any{}
	for t.dec.More() {
		v, err := t.value(depth+1, -1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := t.dec.Token()
	return list, err
}

func (t *treeReader) records(depth int) error {
	around := t.nodes
	for t.dec.More() {
		t.nodes = 0
		record, err := t.value(depth+1, -1)
		if err != nil {
			return err
		}
		object, ok := record.(map[string]any)
		if !ok {
			return errors.New("a record is no object")
		}
		if err := t.each(object); err != nil {
			return err
		}
	}
	t.nodes = around
	_, err := t.dec.Token()
	return err
}
