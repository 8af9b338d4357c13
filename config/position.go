package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// position is a place in the file. Line and column count from 1.
type position struct{ line, column int }

// positions maps field paths to places.
type positions map[string]position

// mark remembers where the field at path was written: at its value where that
// stands behind the key, else at the key.
func (ps positions) mark(path string, key, value *yaml.Node) {
	at := value
	if key != nil && value.Line != key.Line {
		at = key
	}
	ps[path] = position{at.Line, at.Column}
}

// find returns the place of path or of its nearest parent that is in the file.
// What a field lacks is thereby reported at the entry that lacks it.
func (ps positions) find(path string) position {
	for {
		if at, ok := ps[path]; ok {
			return at
		}
		if at, ok := ps[unbracket(path)]; ok {
			return at
		}
		if path == "" {
			return position{1, 1}
		}
		path = parent(path)
	}
}

// parent cuts the last step off a path: "a.b[2]" becomes "a.b", then "a".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// unbracket rewrites map keys given as ["name"] or [name] to .name, the form in
// which the decoder records them. List indexes stay.
func unbracket(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	var b strings.Builder
	for path != "" {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			break
		}
		length := strings.IndexByte(path[open:], ']')
		if length < 0 {
			break
		}
		b.WriteString(path[:open])
		step := path[open+1 : open+length]
		if strings.Trim(step, "0123456789") == "" {
			b.WriteString(path[open : open+length+1])
		} else {
			b.WriteString("." + strings.Trim(step, `"`))
		}
		path = path[open+length+1:]
	}
	return b.String() + path
}
