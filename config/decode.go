package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder walks the tree of a file and the types of its sections side by side.
// It never stops at a mistake: what is wrong is left zero and reported.
type decoder struct {
	problems Problems
	where    positions
	// failed holds the fields that could not be read, so that an owner's
	// complaint about their zero value is not reported as a second mistake.
	failed map[string]bool
	// incomplete holds the sections in which a field could not be read. What an
	// owner says about such a section as a whole may follow from that.
	incomplete map[string]bool
	// reported holds the fields an owner has complained about.
	reported map[string]bool
	files    *fileReader
	// homes tells which sections have a key of a name.
	homes map[string][]string
	// keys are the keys of the section types met so far.
	keys map[reflect.Type][]Key
}

// decode fills the struct that into points to.
func (d *decoder) decode(root *yaml.Node, into any) {
	d.where, d.failed = newPositions(), map[string]bool{}
	d.incomplete, d.reported = map[string]bool{}, map[string]bool{}
	d.homes, d.keys = homes(reflect.TypeOf(into).Elem()), map[reflect.Type][]Key{}
	d.where.mark("", nil, root)
	d.value(reflect.ValueOf(into).Elem(), root, "", Key{})
}

// maxProblems bounds the report. A file with more mistakes is another file.
const maxProblems = 500

// full reports whether no further mistake is recorded.
func (d *decoder) full() bool { return len(d.problems) >= maxProblems }

// add reports a mistake at a place.
func (d *decoder) add(at position, path, cure, format string, args ...any) {
	if d.full() {
		return
	}
	d.problems = append(d.problems, Problem{Line: at.line, Column: at.column, Path: path, Text: fmt.Sprintf(format, args...), Cure: cure})
}

// fail reports a mistake that kept a field from being read, and remembers the
// field.
func (d *decoder) fail(at *yaml.Node, path, cure, format string, args ...any) {
	d.unread(path)
	d.add(position{at.Line, at.Column}, path, cure, format, args...)
}

// unread remembers that a field was not read.
func (d *decoder) unread(path string) {
	d.failed[path] = true
	d.incomplete[parent(path)] = true
}

// lost reports whether the field at path, or something it is part of, was not
// read.
func (d *decoder) lost(path string) bool {
	for ; ; path = parent(path) {
		if d.failed[path] || path == "" {
			return d.failed[path]
		}
	}
}

// explains reports whether a mistake already reported is the likely cause of
// what an owner finds wrong at path.
func (d *decoder) explains(path string) bool {
	path = unbracket(path)
	return d.incomplete[path] || d.lost(path)
}

// value decodes one node. The key carries the tags of the field it is for.
func (d *decoder) value(v reflect.Value, n *yaml.Node, path string, key Key) {
	if !d.plain(n, path) {
		return
	}
	switch t := v.Type(); {
	case t.Kind() == reflect.Pointer:
		target := reflect.New(t.Elem())
		d.value(target.Elem(), n, path, key)
		v.Set(target)
	case t == secretType:
		d.secret(v, n, path)
	case ReadsText(t) && (n.Kind == yaml.ScalarNode || t.Kind() != reflect.Struct):
		d.text(v, n, path)
	case t.Kind() == reflect.Struct:
		d.section(v, n, path)
	case t.Kind() == reflect.Map:
		d.names(v, n, path, key)
	case t.Kind() == reflect.Slice:
		d.list(v, n, path, key)
	case t.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf(d.anything(n, path)))
	default:
		d.scalar(v, n, path, key)
	}
}

const noAliases = "write the value out where it is used; what repeats belongs in groups, profiles or defaults"

// plain refuses the parts of YAML that hide what a reader of the file sees:
// aliases, anchors, tags and keys without a value.
func (d *decoder) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		d.fail(n, path, noAliases, "the alias *%s is not followed here", n.Value)
	case n.Anchor != "":
		d.fail(n, path, noAliases, "the anchor &%s has no use here", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, path, "remove the tag", "the tag %s has no use here", n.Tag)
	case n.Tag == "!!null":
		d.fail(n, path, "give it a value or remove the key", "there is no value")
	default:
		return true
	}
	return false
}

// entries calls visit for every key of a mapping, once per name.
func (d *decoder) entries(n *yaml.Node, path string, visit func(key, value *yaml.Node)) {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			d.fail(key, path, noAliases, "the merge key << is not followed here")
		case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 || key.Anchor != "" || key.Tag == "!!null":
			d.fail(key, path, "write `key: value`", "a key must be a plain word")
		case first[key.Value] > 0:
			// The first one holds, and is looked at further.
			d.add(position{key.Line, key.Column}, join(path, key.Value), "keep one of them", "%s is written twice, the first time in line %d", key.Value, first[key.Value])
		default:
			first[key.Value] = key.Line
			visit(key, value)
		}
	}
}

// section decodes a mapping into a struct.
func (d *decoder) section(v reflect.Value, n *yaml.Node, path string) {
	keys, known := d.keys[v.Type()]
	if !known {
		keys = Keys(v.Type())
		d.keys[v.Type()] = keys
	}
	if n.Kind != yaml.MappingNode {
		cure := "write `key: value` lines below it"
		if len(keys) > 0 {
			cure = fmt.Sprintf("write {%s: …}", keys[0].Name)
		}
		d.fail(n, path, cure, "must be a mapping, this is %s", describe(n))
		return
	}
	d.entries(n, path, func(name, value *yaml.Node) {
		child := join(path, name.Value)
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name.Value })
		if i < 0 {
			d.unknown(name, child, path, keys)
			return
		}
		d.where.mark(child, name, value)
		d.value(v.FieldByIndex(keys[i].Field.Index), value, child, keys[i])
	})
}

// unknown reports a key that the section does not have. A misspelt key also
// explains why the key that was meant is missing.
func (d *decoder) unknown(name *yaml.Node, path, section string, keys []Key) {
	if d.full() {
		return // before the search for a likeness, which takes time
	}
	valid := make([]string, len(keys))
	for i, key := range keys {
		valid[i] = key.Name
	}
	meant, cure := didYouMean(name.Value, valid)
	if at := d.homes[name.Value]; meant == "" && len(at) == 1 && at[0] != "" {
		cure = "it belongs to " + at[0]
	}
	d.fail(name, path, cure, "unknown key %s", quote(name.Value))
	if meant != "" {
		d.unread(join(section, meant))
	}
}

// names decodes a mapping whose keys the operator chooses.
func (d *decoder) names(v reflect.Value, n *yaml.Node, path string, key Key) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "write {name: …}", "must be a mapping, this is %s", describe(n))
		return
	}
	made := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	d.entries(n, path, func(name, value *yaml.Node) {
		child := join(path, name.Value)
		if name.Value == "" {
			d.fail(name, child, "give it a name", "the name is empty")
			return
		}
		d.where.mark(child, name, value)
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(element, value, child, key)
		made.SetMapIndex(reflect.ValueOf(name.Value).Convert(v.Type().Key()), element)
	})
	v.Set(made)
}

// list decodes a sequence.
func (d *decoder) list(v reflect.Value, n *yaml.Node, path string, key Key) {
	if n.Kind != yaml.SequenceNode {
		cure := "start each entry with `- `"
		if n.Kind == yaml.ScalarNode {
			cure = "write [" + shorten(n.Value) + "]"
		}
		d.fail(n, path, cure, "must be a list, this is %s", describe(n))
		return
	}
	made := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, entry := range n.Content {
		child := path + "[" + strconv.Itoa(i) + "]"
		d.where.mark(child, nil, entry)
		d.value(made.Index(i), entry, child, key)
	}
	v.Set(made)
}

// text hands a scalar to the type's own parser. It gets what is written, so
// that 1.10 stays 1.10.
func (d *decoder) text(v reflect.Value, n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "", "must be one value, this is %s", describe(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		v.SetZero()
		d.fail(n, path, "", "%s", shorten(err.Error()))
	}
}

// scalar decodes text, numbers and truth values without converting one into
// another.
func (d *decoder) scalar(v reflect.Value, n *yaml.Node, path string, key Key) {
	switch v.Kind() {
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			cure := ""
			if n.Kind == yaml.ScalarNode {
				cure = "put it in quotes: " + strconv.Quote(n.Value)
			} else if n.Kind == yaml.SequenceNode && len(n.Content) == 1 && n.Content[0].Kind == yaml.ScalarNode {
				cure = "write " + shorten(n.Content[0].Value) + " without the list"
			}
			d.fail(n, path, cure, "must be text, this is %s", describe(n))
			return
		}
		v.SetString(n.Value)
		if key.NamesFile {
			d.namedFile(v, n, path)
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.fail(n, path, "write true or false", "must be true or false, this is %s", describe(n))
			return
		}
		v.SetBool(n.Value[0] == 't' || n.Value[0] == 'T')
	case reflect.Int, reflect.Int64, reflect.Int32:
		number, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || number > math.MaxInt32 || number < math.MinInt32 {
			d.fail(n, path, "write digits only, such as 8", "must be a whole number, this is %s", describe(n))
			return
		}
		v.SetInt(number)
	default:
		// A section's type holds a kind that no file can give: a mistake of ours,
		// found by the test that decodes examples/full.yaml.
		d.fail(n, path, "", "cannot be configured: %s is not supported", v.Type())
	}
}

// anything decodes what has no type of its own, such as a claim, to what JSON
// would give, with whole numbers kept whole.
func (d *decoder) anything(n *yaml.Node, path string) any {
	if !d.plain(n, path) {
		return ""
	}
	switch n.Kind {
	case yaml.MappingNode:
		made := map[string]any{}
		d.entries(n, path, func(name, value *yaml.Node) { made[name.Value] = d.anything(value, join(path, name.Value)) })
		return made
	case yaml.SequenceNode:
		made := make([]any, len(n.Content))
		for i, entry := range n.Content {
			made[i] = d.anything(entry, path+"["+strconv.Itoa(i)+"]")
		}
		return made
	}
	switch n.Tag {
	case "!!bool":
		return n.Value[0] == 't' || n.Value[0] == 'T'
	case "!!int":
		if number, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return number
		}
	case "!!float":
		if number, err := strconv.ParseFloat(n.Value, 64); err == nil && strings.ContainsAny(n.Value, ".eE") {
			return number
		}
	default:
		return n.Value
	}
	d.fail(n, path, "write digits only, or put it in quotes", "%s is no number", quote(n.Value))
	return ""
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// describe names what is written, for "must be a list, this is …".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	kind := "text"
	switch n.Tag {
	case "!!int", "!!float":
		kind = "a number"
	case "!!bool":
		kind = "a truth value"
	case "!!timestamp":
		kind = "a date"
	}
	return kind + ": " + quote(n.Value)
}

// quote shows a piece of the file in a message.
func quote(s string) string { return strconv.Quote(shorten(s)) }

// shorten keeps messages readable when a value is long.
func shorten(s string) string {
	const most = 120
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
