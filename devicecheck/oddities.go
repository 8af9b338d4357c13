package devicecheck

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

const (
	// maxOddities bounds what one reading tells apart; whatever comes later is
	// counted together.
	maxOddities = 100
	// maxTold bounds what a source remembers to have logged.
	maxTold = 1000
)

// oddity is a value that an inventory gave for a field and that is not known
// here, so that the fact stays unknown. Word is empty where there was none.
type oddity struct{ field, word string }

// oddities counts them during one reading.
type oddities map[oddity]int

// note counts a value that has no meaning here.
func (o oddities) note(field string, value any) {
	found := oddity{field, ""}
	switch v := value.(type) {
	case nil:
	case string:
		found.word = clip(v)
	default:
		word, ok := scalar(v)
		if !ok && word == "" {
			word = "a list or an object"
		}
		found.word = clip(word)
	}
	if _, known := o[found]; !known && len(o) >= maxOddities {
		found = oddity{"", "others"}
	}
	o[found]++
}

// total returns how many values were not understood.
func (o oddities) total() int {
	sum := 0
	for _, n := range o {
		sum += n
	}
	return sum
}

// meaning returns what a word of the inventory stands for. Everything that is
// not listed has the zero value, which is unknown, and is counted.
func meaning[T any](o oddities, field string, value any, words map[string]T) T {
	if word, ok := value.(string); ok {
		if m, listed := words[word]; listed {
			return m
		}
	}
	o.note(field, value)
	var unknown T
	return unknown
}

// truth returns what a JSON value says if it is true or false; everything else
// is unknown, and counted.
func truth(o oddities, field string, value any) access.Tri {
	if b, ok := value.(bool); ok {
		return access.TriOf(b)
	}
	o.note(field, value)
	return access.Unknown
}

// tellOdd logs each oddity the first time a source shows it.
func (r *remote) tellOdd(found oddities) {
	order := func(a, b oddity) int { return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.word, b.word)) }
	for _, o := range slices.SortedFunc(maps.Keys(found), order) {
		if r.told[o] || len(r.told) >= maxTold {
			continue
		}
		r.told[o] = true
		said := slog.String("value", o.word)
		if o.word == "" {
			said = slog.Bool("missing", true)
		}
		r.log.Warn("device inventory says what is not known here; the fact counts as unknown",
			"field", o.field, said, "records", fmt.Sprint(found[o]))
	}
}
