package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on what is read. Real configurations stay far below them.
const (
	maxSource  = 1 << 20
	maxEntries = 5000 // entries of one list, and routes in all
	maxDepth   = 32
)

// Problem is why a file cannot be read.
type Problem struct {
	// Line counts from 1; 0 is the file as a whole.
	Line int
	Text string
}

// Error returns "line 3: …".
func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Text)
}

func problem(line int, format string, args ...any) error {
	return &Problem{Line: line, Text: fmt.Sprintf(format, args...)}
}

// parseYAML reads the one document of a YAML or JSON file.
func parseYAML(text []byte) (*yaml.Node, error) {
	if len(text) > maxSource {
		return nil, problem(0, "the file is larger than %d KiB", maxSource>>10)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	doc, err := decodeDocument(decoder)
	switch {
	case errors.Is(err, io.EOF):
		return nil, problem(0, "the file is empty")
	case err != nil:
		return nil, problem(0, "this is neither YAML nor JSON: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if more, err := decodeDocument(decoder); err == nil {
		return nil, problem(more.Line, "a second document starts here")
	}
	root := doc.Content[0]
	return root, plain(root, 0)
}

// decodeDocument decodes one document. The library panics on some streams; that
// is an error here.
func decodeDocument(decoder *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	doc = new(yaml.Node)
	if err := decoder.Decode(doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, io.EOF
	}
	return doc, nil
}

// plain refuses aliases, by which a short file becomes an endless one, and what
// is nested or repeated beyond reason.
func plain(n *yaml.Node, depth int) error {
	switch {
	case n.Kind == yaml.AliasNode:
		return problem(n.Line, "aliases (*%s) are not followed: write the value out", n.Value)
	case depth > maxDepth:
		return problem(n.Line, "nested more than %d times", maxDepth)
	case len(n.Content) > 2*maxEntries:
		return problem(n.Line, "more than %d entries", maxEntries)
	}
	seen := map[string]bool{}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if child.Kind != yaml.ScalarNode {
				return problem(child.Line, "a key must be a plain word")
			}
			if seen[child.Value] {
				return problem(child.Line, "%q is written twice", child.Value)
			}
			seen[child.Value] = true
		}
		if err := plain(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// section is a mapping whose keys are taken one by one. What is never taken was
// not understood and is reported.
type section struct {
	node  *yaml.Node
	name  string
	taken map[string]bool
	err   *error // the first problem, shared by all sections of a file
}

// newSection makes a section of a node; one of another kind is a problem.
func newSection(n *yaml.Node, name string, err *error) *section {
	s := &section{node: n, name: name, taken: map[string]bool{}, err: err}
	if n != nil && n.Kind != yaml.MappingNode {
		s.fail(n.Line, "%s must be a mapping", name)
		s.node = nil
	}
	return s
}

func (s *section) fail(line int, format string, args ...any) {
	if *s.err == nil {
		*s.err = problem(line, format, args...)
	}
}

// line returns where the section stands.
func (s *section) line() int {
	if s.node == nil {
		return 0
	}
	return s.node.Line
}

// take returns the value of a key, nil if there is none or it is null.
func (s *section) take(key string) *yaml.Node {
	s.taken[key] = true
	if s.node == nil {
		return nil
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if s.node.Content[i].Value == key && s.node.Content[i+1].Tag != "!!null" {
			return s.node.Content[i+1]
		}
	}
	return nil
}

// at returns the line of a key, or that of the section.
func (s *section) at(key string) int {
	if s.node != nil {
		for i := 0; i+1 < len(s.node.Content); i += 2 {
			if s.node.Content[i].Value == key {
				return s.node.Content[i].Line
			}
		}
	}
	return s.line()
}

// text takes one value; numbers and truth values count as what is written.
func (s *section) text(key string) string {
	n := s.take(key)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		s.fail(n.Line, "%s must be one value", key)
		return ""
	}
	return n.Value
}

// flag takes a truth value.
func (s *section) flag(key string) bool {
	switch value := s.text(key); value {
	case "true", "True", "yes", "1":
		return true
	case "", "false", "False", "no", "0":
		return false
	default:
		s.fail(s.at(key), "%s must be true or false, this is %q", key, value)
		return false
	}
}

// texts takes a list of values, or a single one.
func (s *section) texts(key string) []string {
	n := s.take(key)
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var list []string
	for _, entry := range n.Content {
		if n.Kind != yaml.SequenceNode || entry.Kind != yaml.ScalarNode {
			s.fail(entry.Line, "%s must be a list of values", key)
			return nil
		}
		list = append(list, entry.Value)
	}
	return list
}

// sections takes a list of mappings.
func (s *section) sections(key string) []*section {
	n := s.take(key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		s.fail(n.Line, "%s must be a list", key)
		return nil
	}
	return sectionsOf(n, key, s.err)
}

func sectionsOf(n *yaml.Node, name string, err *error) (list []*section) {
	for _, entry := range n.Content {
		list = append(list, newSection(entry, "an entry of "+name, err))
	}
	return list
}

// section takes a mapping; an empty one if there is none.
func (s *section) section(key string) *section { return newSection(s.take(key), key, s.err) }

// ignore takes keys that mean nothing here.
func (s *section) ignore(keys ...string) {
	for _, key := range keys {
		s.taken[key] = true
	}
}

// rest returns the keys that nobody took, in the order of the file.
func (s *section) rest() (keys []*yaml.Node) {
	if s.node == nil {
		return nil
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if key := s.node.Content[i]; !s.taken[key.Value] {
			keys = append(keys, key)
		}
	}
	return keys
}

// keys returns all keys.
func (s *section) keys() (keys []string) {
	if s.node == nil {
		return nil
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		keys = append(keys, s.node.Content[i].Value)
	}
	return slices.Clone(keys)
}
