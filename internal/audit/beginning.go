package audit

import (
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"hash"
	"io"

	"github.com/doorward/doorward/internal/access"
)

// A person may be in hundreds of groups, which make a record several times as
// long, and are the same in every record of the session. So they stand first
// there: what many records begin with is written once, and hashed once. Members of
// an object have no order (RFC 8259 §1), and the hash of a record is that of its
// whole line as ever, so that no reader has to know.

// longList is from how many bytes on groups stand first. Shorter lists stay where
// people are used to read them: they would save less than half a microsecond.
const longList = 1 << 10

// openGroups opens what the groups are in.
const openGroups = `{"request":{"identity":{"groups":`

// beginning is what records of a person in many groups begin with: everything up
// to the bracket that ends the list. Nobody changes it.
type beginning struct {
	text  string
	state []byte // of SHA-256 behind the text
}

func newBeginning(list string) *beginning {
	b := &beginning{text: openGroups + list[:len(list)-len("]")]}
	sum := sha256.New()
	io.WriteString(sum, b.text)
	var err error
	if b.state, err = sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return nil // every record has its own then
	}
	return b
}

// groups are those of a session as its records have them: a short list, or the
// beginning with a long one. Zero where none are kept, or where they look as if they
// had a token in them.
type groups struct {
	list  string
	begin *beginning
}

// groupsOf returns what is kept with the session that a request comes from.
func groupsOf(r *access.Request) (kept groups) {
	if r != nil && r.Session.Kept != nil && r.Session.Kept.Groups.Is(r.Identity.Groups) {
		kept = r.Session.Kept.Groups.Once(writeGroups).(groups)
	}
	return kept
}

func writeGroups(list []string) any {
	text := encodedTexts(list)
	if len(text) < longList {
		return groups{list: text}
	}
	return groups{begin: newBeginning(text)}
}

// encoded is one event, as one line.
type encoded struct {
	begin *beginning // nil: what many have begins nothing
	rest  []byte     // what comes behind it
}

func (e encoded) size() int {
	if e.begin == nil {
		return len(e.rest)
	}
	return len(e.begin.text) + len(e.rest)
}

func (e encoded) appendTo(to []byte) []byte {
	if e.begin != nil {
		to = append(to, e.begin.text...)
	}
	return append(to, e.rest...)
}

// whole returns the line, which must not be changed.
func (e encoded) whole() []byte {
	if e.begin == nil {
		return e.rest
	}
	return e.appendTo(make([]byte, 0, e.size()))
}

// hasher hashes records, one after the other, and what they begin with never twice.
type hasher struct {
	sum    resumable // nil until a record is the first with a beginning
	digest [sha256.Size]byte
}

// resumable is what crypto/sha256 makes.
type resumable interface {
	hash.Hash
	encoding.BinaryUnmarshaler
}

// append appends the hash of a record, which begins with what begin says.
func (h *hasher) append(to, record []byte, begin *beginning) []byte {
	if begin == nil {
		return appendHash(to, record)
	}
	if h.sum == nil {
		h.sum = sha256.New().(resumable)
	}
	if h.sum.UnmarshalBinary(begin.state) != nil {
		return appendHash(to, record)
	}
	h.sum.Write(record[len(begin.text):])
	return base64.RawURLEncoding.AppendEncode(to, h.sum.Sum(h.digest[:0]))
}
