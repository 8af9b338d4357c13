package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// EntryEdit says what becomes of one entry of a list, which is a mapping.
type EntryEdit struct {
	// Path names the entry: "routes[3].allow[1]".
	Path string
	// Remove takes the entry out, with the comment above it. A list that is left
	// without entries goes, too.
	Remove bool
	// Keys change the entry.
	Keys []KeyEdit
	// Copies are placed behind the entry. Each is made of the entry as it was, with
	// changes of its own.
	Copies [][]KeyEdit
}

// KeyEdit changes one key of a mapping.
type KeyEdit struct {
	Key string
	// Drop lists the entries, by index, that the key's list loses. One must be left.
	Drop []int
	// Value is the new value, in YAML on one line. Empty, without Drop, removes the
	// key.
	Value string
	// Instead is a key that the new one takes the place of.
	Instead string
}

// Edit changes a configuration file as a careful person would: nothing but what
// is asked for, with every comment and all white space elsewhere kept. A place
// that is written in a way that cannot be edited safely is an error.
func Edit(text []byte, edits []EntryEdit) ([]byte, error) {
	mark := text[:len(text)-len(bytes.TrimPrefix(text, utf8Mark))]
	root, problem := parse(text)
	if problem != nil {
		return nil, errors.New(problem.Text)
	}
	e := newEditor(text[len(mark):])
	if err := e.entries(root, edits); err != nil {
		return nil, err
	}
	return append(slices.Clone(mark), e.apply()...), nil
}

// editor collects changes of a text.
type editor struct {
	text  string
	lines []int // where each line begins
	cuts  []cut
}

// cut is a piece of the text and what takes its place.
type cut struct {
	from, to int
	text     string
}

func newEditor(text []byte) *editor {
	e := &editor{text: string(text), lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			e.lines = append(e.lines, i+1)
		}
	}
	return e
}

func (e *editor) replace(from, to int, text string) { e.cuts = append(e.cuts, cut{from, to, text}) }

func (e *editor) apply() []byte {
	slices.SortStableFunc(e.cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	var b bytes.Buffer
	at := 0
	for _, c := range e.cuts {
		b.WriteString(e.text[at:max(c.from, at)])
		b.WriteString(c.text)
		at = max(c.to, at)
	}
	b.WriteString(e.text[at:])
	return b.Bytes()
}

// entries applies edits, all entries of one list together.
func (e *editor) entries(root *yaml.Node, edits []EntryEdit) error {
	lists := map[string]map[int]EntryEdit{}
	var order []string
	for _, edit := range edits {
		open := strings.LastIndexByte(edit.Path, '[')
		var index int
		if _, err := fmt.Sscanf(edit.Path[max(open, 0):], "[%d]", &index); open < 0 || err != nil {
			return fmt.Errorf("%s is no entry of a list", edit.Path)
		}
		list := edit.Path[:open]
		if lists[list] == nil {
			lists[list] = map[int]EntryEdit{}
			order = append(order, list)
		}
		lists[list][index] = edit
	}
	for _, path := range order {
		owner, key := nodeAt(root, parent(path)), path[strings.LastIndexByte(path, '.')+1:]
		if err := e.list(owner, key, lists[path]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// nodeAt follows a path such as "routes[3].allow"; nil where it leads nowhere.
func nodeAt(n *yaml.Node, path string) *yaml.Node {
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var index int
		switch {
		case n == nil:
			return nil
		case n.Kind == yaml.SequenceNode:
			if _, err := fmt.Sscan(step, &index); err != nil || index >= len(n.Content) {
				return nil
			}
			n = n.Content[index]
		default:
			_, n = pair(n, step)
		}
	}
	return n
}

// pair returns the key and the value of a mapping's entry, nil for none.
func pair(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func (e *editor) list(owner *yaml.Node, key string, edits map[int]EntryEdit) error {
	_, list := pair(owner, key)
	if list == nil || list.Kind != yaml.SequenceNode {
		return errors.New("there is no such list")
	}
	gone := map[int]bool{}
	for index, edit := range edits {
		switch {
		case index >= len(list.Content):
			return fmt.Errorf("there is no entry %d", index)
		case edit.Remove:
			gone[index] = true
		default:
			if err := e.entry(list, index, edit); err != nil {
				return err
			}
		}
	}
	if len(gone) == len(list.Content) {
		return e.removeKey(owner, key)
	}
	return e.removeItems(list, gone)
}

// entry edits a mapping in a list and places copies behind it.
func (e *editor) entry(list *yaml.Node, index int, edit EntryEdit) error {
	item := list.Content[index]
	from, to, err := e.span(item)
	if err != nil {
		return err
	}
	whole := to
	if item.Style&yaml.FlowStyle == 0 {
		whole = e.lineEnd(to) // with a comment behind it, which stays where it is
	}
	text, err := e.edited(item, from, whole, edit.Keys)
	if err != nil {
		return err
	}
	e.replace(from, whole, text)
	for _, keys := range edit.Copies {
		text, err := e.edited(item, from, to, keys)
		switch {
		case err != nil:
			return err
		case list.Style&yaml.FlowStyle != 0:
			e.replace(to, to, ", "+text)
		default:
			dash := e.dash(from)
			e.replace(e.lineEnd(to), e.lineEnd(to), "\n"+strings.Repeat(" ", dash-e.lineStart(dash))+e.text[dash:from]+text)
		}
	}
	return nil
}

// edited returns the text of a mapping with changed keys. The piece is edited as
// a document of its own, in which it stands at the same column.
func (e *editor) edited(item *yaml.Node, from, to int, keys []KeyEdit) (string, error) {
	if len(keys) == 0 {
		return e.text[from:to], nil
	}
	indent := strings.Repeat(" ", item.Column-1)
	doc, _, err := document([]byte(indent + e.text[from:to]))
	if err != nil {
		return "", err
	}
	sub := newEditor([]byte(indent + e.text[from:to]))
	for _, k := range keys {
		if err := sub.key(doc.Content[0], k); err != nil {
			return "", fmt.Errorf("%s: %w", k.Key, err)
		}
	}
	return string(sub.apply()[len(indent):]), nil
}

func (e *editor) key(m *yaml.Node, edit KeyEdit) error {
	key, value := pair(m, edit.Key)
	if old, oldValue := pair(m, edit.Instead); old != nil {
		return e.replaceNodes(old, oldValue, edit.Key+": "+edit.Value)
	}
	switch {
	case len(edit.Drop) > 0 && value != nil:
		gone := map[int]bool{}
		for _, i := range edit.Drop {
			gone[i] = true
		}
		return e.removeItems(value, gone)
	case edit.Value == "":
		return e.removeKey(m, edit.Key)
	case key != nil:
		return e.replaceNodes(key, value, edit.Key+": "+edit.Value)
	}
	return e.insertKey(m, edit.Key+": "+edit.Value)
}

func (e *editor) replaceNodes(first, last *yaml.Node, text string) error {
	from, _, err := e.span(first)
	if err != nil {
		return err
	}
	_, to, err := e.span(last)
	e.replace(from, to, text)
	return err
}

// insertKey adds a key behind the last one.
func (e *editor) insertKey(m *yaml.Node, text string) error {
	_, end, err := e.span(m.Content[len(m.Content)-1])
	if err != nil {
		return err
	}
	if m.Style&yaml.FlowStyle != 0 {
		e.replace(end, end, ", "+text)
		return nil
	}
	end = e.lineEnd(end)
	e.replace(end, end, "\n"+strings.Repeat(" ", m.Column-1)+text)
	return nil
}

func (e *editor) removeKey(m *yaml.Node, name string) error {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value != name {
			continue
		}
		starts, ends := make([]int, 0, len(m.Content)/2), make([]int, 0, len(m.Content)/2)
		for j := 0; j+1 < len(m.Content); j += 2 {
			from, _, err := e.span(m.Content[j])
			if err != nil {
				return err
			}
			_, to, err := e.span(m.Content[j+1])
			if err != nil {
				return err
			}
			starts, ends = append(starts, from), append(ends, to)
		}
		return e.remove(m.Style&yaml.FlowStyle != 0, starts, ends, map[int]bool{i / 2: true})
	}
	return nil
}

func (e *editor) removeItems(list *yaml.Node, gone map[int]bool) error {
	var starts, ends []int
	flow := list.Style&yaml.FlowStyle != 0
	for _, item := range list.Content {
		from, to, err := e.span(item)
		if err != nil {
			return err
		}
		if !flow {
			from = e.dash(from)
		}
		starts, ends = append(starts, from), append(ends, to)
	}
	return e.remove(flow, starts, ends, gone)
}

// remove takes some of the pieces of a collection out, with the commas between
// them or with their lines.
func (e *editor) remove(flow bool, starts, ends []int, gone map[int]bool) error {
	last := len(starts) - 1
	for last >= 0 && gone[last] {
		last--
	}
	if last < 0 {
		return errors.New("nothing would be left")
	}
	for i := range starts {
		switch {
		case !gone[i]:
		case !flow && strings.TrimSpace(e.text[e.lineStart(starts[i]):starts[i]]) == "":
			from := e.lineStart(starts[i])
			for above := e.lineStart(from - 1); i > 0 && from > ends[i-1]+1 && strings.HasPrefix(strings.TrimSpace(e.text[above:from]), "#"); above = e.lineStart(from - 1) {
				from = above // the comment above it is about it
			}
			e.replace(from, min(e.lineEnd(ends[i])+1, len(e.text)), "")
		case i < last:
			e.replace(starts[i], starts[i+1], "")
		case flow:
			e.replace(ends[last], ends[i], "")
		default:
			return errors.New("it shares its line with what contains it")
		}
	}
	return nil
}

func (e *editor) lineStart(at int) int {
	return strings.LastIndexByte(e.text[:max(at, 0)], '\n') + 1
}

// lineEnd returns where the line ends, before its line break.
func (e *editor) lineEnd(at int) int {
	if n := strings.IndexByte(e.text[at:], '\n'); n >= 0 {
		return at + n
	}
	return len(e.text)
}

// dash returns where the dash of a block list's entry stands.
func (e *editor) dash(at int) int { return strings.LastIndexByte(e.text[:at], '-') }

// span returns where a node begins and ends. The parser tells beginnings only.
func (e *editor) span(n *yaml.Node) (from, to int, err error) {
	from = e.lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRuneInString(e.text[from:])
		from += size
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		to, err = e.scalarEnd(n, from)
	case n.Style&yaml.FlowStyle != 0:
		to, err = e.flowEnd(n, from)
	case len(n.Content) > 0:
		_, to, err = e.span(n.Content[len(n.Content)-1])
	default:
		err = errors.New("cannot be edited as it is written")
	}
	return from, to, err
}

func (e *editor) scalarEnd(n *yaml.Node, from int) (int, error) {
	text := e.text[from:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := 1; i < len(text); i++ {
			switch text[i] {
			case '\\':
				i++
			case '"':
				return from + i + 1, nil
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := 1; i < len(text); i++ {
			if text[i] == '\'' && strings.HasPrefix(text[i+1:], "'") {
				i++
			} else if text[i] == '\'' {
				return from + i + 1, nil
			}
		}
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return e.blockEnd(from), nil
	case strings.HasPrefix(text, n.Value):
		return from + len(n.Value), nil
	}
	return 0, fmt.Errorf("line %d cannot be edited as it is written", n.Line)
}

// blockEnd returns the end of a literal or folded text: its lines are indented
// deeper than the line it begins on.
func (e *editor) blockEnd(from int) int {
	indent := func(line string) int { return len(line) - len(strings.TrimLeft(line, " -")) }
	own := indent(e.text[e.lineStart(from):e.lineEnd(from)])
	end := e.lineEnd(from)
	for at := end + 1; at < len(e.text); at = e.lineEnd(at) + 1 {
		line := e.text[at:e.lineEnd(at)]
		if strings.TrimSpace(line) == "" {
			continue
		}
		if len(line)-len(strings.TrimLeft(line, " ")) <= own {
			break
		}
		end = at + len(line)
	}
	return end
}

// flowEnd finds the closing bracket behind the last child.
func (e *editor) flowEnd(n *yaml.Node, from int) (int, error) {
	at := from + 1
	if len(n.Content) > 0 {
		var err error
		if _, at, err = e.span(n.Content[len(n.Content)-1]); err != nil {
			return 0, err
		}
	}
	for at < len(e.text) {
		switch e.text[at] {
		case '}', ']':
			return at + 1, nil
		case ' ', '\t', '\r', '\n', ',':
			at++
		case '#':
			at = e.lineEnd(at)
		default:
			return 0, fmt.Errorf("line %d cannot be edited as it is written", n.Line)
		}
	}
	return 0, errors.New("a bracket is not closed")
}
