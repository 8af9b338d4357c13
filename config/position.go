package config

import (
	"hash/maphash"
	"strings"

	"go.yaml.in/yaml/v3"
)

// position is a place in the file. Line and column count from 1.
type position struct{ line, column int }

// positions maps field paths to places. It keeps hashes of the paths: it stays for
// as long as the configuration is in force, with an entry for every key and every
// element of a list, and the paths would be more than all else of a large file. No
// two of a file will share 64 bits, and no more than a line of a message would be
// wrong.
type positions struct {
	seed maphash.Seed
	at   map[uint64][2]uint32 // line and column
}

func newPositions() positions {
	return positions{maphash.MakeSeed(), map[uint64][2]uint32{}}
}

// mark remembers where the field at path was written: at its value where that
// stands behind the key, else at the key.
func (ps positions) mark(path string, key, value *yaml.Node) {
	at := value
	if key != nil && value.Line != key.Line {
		at = key
	}
	ps.at[maphash.String(ps.seed, path)] = [2]uint32{uint32(at.Line), uint32(at.Column)}
}

// of returns the place of path, if it is in the file.
func (ps positions) of(path string) (position, bool) {
	if len(ps.at) == 0 {
		return position{}, false
	}
	at, ok := ps.at[maphash.String(ps.seed, path)]
	return position{int(at[0]), int(at[1])}, ok
}

// find returns the place of path or of its nearest parent that is in the file.
// What a field lacks is thereby reported at the entry that lacks it.
func (ps positions) find(path string) position {
	for {
		if at, ok := ps.of(path); ok {
			return at
		}
		if at, ok := ps.of(unbracket(path)); ok {
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
