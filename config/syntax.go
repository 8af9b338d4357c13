package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file. Ten thousand routes with five rules each
// are below it.
const maxFile = 8 << 20

// parse turns the text of a file into the tree of its one document, or says in
// one problem why it is none.
func parse(text []byte) (*yaml.Node, *Problem) {
	if p := readable(text); p != nil {
		return nil, p
	}
	text = bytes.TrimPrefix(text, utf8Mark)
	doc, rest, err := document(text)
	if errors.Is(err, io.EOF) || err == nil && empty(doc) {
		return nil, &Problem{Line: 1, Column: 1, Text: "the file is empty", Cure: "start with `version: 1`; docs/config.md shows a first configuration"}
	}
	if err != nil {
		return nil, syntaxProblem(text, err)
	}
	if rest != nil {
		return nil, &Problem{Line: rest.Line, Column: rest.Column, Text: "a second document starts here", Cure: "remove the line `---`: the whole configuration is one document"}
	}
	return doc.Content[0], nil
}

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Tag == "!!null"
}

var utf8Mark = []byte("\xef\xbb\xbf")

// readable refuses what is no UTF-8 text of bearable length.
func readable(text []byte) *Problem {
	if len(text) > maxFile {
		return &Problem{Text: fmt.Sprintf("the file is larger than %d KiB", maxFile>>10), Cure: "is this the right file?"}
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return &Problem{Line: 1, Column: 1, Text: "the file is encoded as UTF-16", Cure: "save it as UTF-8"}
	}
	if !utf8.Valid(text) {
		good := 0
		for {
			r, size := utf8.DecodeRune(text[good:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			good += size
		}
		at := place(text, good)
		return &Problem{Line: at.line, Column: at.column, Text: fmt.Sprintf("byte %#02x is not UTF-8", text[good]), Cure: "save the file as UTF-8"}
	}
	return nil
}

// document parses the first document and reports where a second one starts.
// The library panics on streams it considers impossible; those are errors here.
func document(text []byte) (doc, rest *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	doc = new(yaml.Node)
	if err := decoder.Decode(doc); err != nil {
		return nil, nil, err
	}
	rest = new(yaml.Node)
	switch err := decoder.Decode(rest); {
	case errors.Is(err, io.EOF):
		return doc, nil, nil
	case err != nil:
		return nil, nil, err
	}
	return doc, rest, nil
}

// syntaxProblem words the parser's error and finds its place. The parser's own
// line is often that of the enclosing block, so the place is found by parsing
// again: the fault is where the longest beginning of the file that is good YAML
// ends.
func syntaxProblem(text []byte, err error) *Problem {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if _, after, ok := strings.Cut(rest, ": "); ok {
			what = after
		}
	}
	cure := syntaxCures[what]
	if strings.HasPrefix(what, "unknown anchor") {
		what, cure = "it uses an alias", noAliases
	}
	offset := faultyOffset(text)
	at := place(text, offset)
	p := &Problem{Line: at.line, Column: at.column, Text: "this is not YAML: " + what, Cure: cure}
	if indent := text[lineStart(text, offset):]; bytes.HasPrefix(bytes.TrimLeft(indent, " "), []byte("\t")) {
		p.Column = 1 + bytes.IndexByte(indent, '\t')
		p.Text, p.Cure = "this line is indented with a tab", "indent with spaces"
	}
	if p.Cure == "" {
		p.Cure = "compare the line with the ones above: indentation, quotes, brackets"
	}
	return p
}

var syntaxCures = map[string]string{
	"did not find expected key":                              "the indentation of this line fits none of the blocks above, or a quote is missing",
	"did not find expected '-' indicator":                    "the indentation of this line fits none of the blocks above",
	"mapping values are not allowed in this context":         "put a value that holds a colon in quotes, or correct the indentation",
	"could not find expected ':'":                            "write `key: value`",
	"found character that cannot start any token":            "put the value in quotes",
	"did not find expected ',' or ']'":                       "close the list that is open here with ]",
	"did not find expected ',' or '}'":                       "close the mapping that is open here with }",
	"found unexpected end of stream":                         "close the quote that is open here",
	"control characters are not allowed":                     "remove the invisible character",
	"found unknown escape character":                         "write the backslash twice, or use single quotes",
	"did not find expected node content":                     "a value is missing here",
	"exceeded max depth of 10000":                            "is this the right file?",
	"block sequence entries are not allowed in this context": "start the list on a line of its own",
	"did not find expected alphabetic or numeric character":  "put a value that starts with * or & in quotes",
}

// Bounds on the search for a fault: the bytes that are parsed again, and the
// length of a line that is searched character by character.
const (
	maxSearch = 2 << 20
	maxLine   = 300
)

// faultyOffset returns the offset of the first character that cannot be part of
// good YAML, or, where the search would take too long, of the line in question.
func faultyOffset(text []byte) int {
	good := func(n int) bool {
		_, _, err := document(text[:n])
		return err == nil || errors.Is(err, io.EOF)
	}
	end := reached(text)
	start := lineStart(text, end)
	for budget := maxSearch - start; start > 0 && !good(start); budget -= start {
		if budget < 0 {
			return lineStart(text, reached(text))
		}
		end = start
		start = lineStart(text, start-1)
	}
	if end-start > maxLine {
		return start
	}
	fault := start
	for n := start + 1; n < end; n++ {
		if utf8.RuneStart(text[n]) && good(n) {
			fault = n
		}
	}
	return fault
}

// lineStart returns the offset at which the line that holds offset begins.
func lineStart(text []byte, offset int) int {
	return bytes.LastIndexByte(text[:offset], '\n') + 1
}

// reached returns the end of the line in which the parser gave up.
func reached(text []byte) int {
	slow := &slowReader{text: text}
	func() {
		defer func() { _ = recover() }()
		decoder := yaml.NewDecoder(slow)
		for decoder.Decode(new(yaml.Node)) == nil {
		}
	}()
	if i := bytes.IndexByte(text[slow.read:], '\n'); i >= 0 {
		return slow.read + i
	}
	return len(text)
}

// slowReader hands out one byte at a time, so that what was read tells how far
// the parser came.
type slowReader struct {
	text []byte
	read int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.read == len(r.text) {
		return 0, io.EOF
	}
	p[0] = r.text[r.read]
	r.read++
	return 1, nil
}

// place converts an offset to a line and a column.
func place(text []byte, offset int) position {
	before := text[:offset]
	line := 1 + bytes.Count(before, []byte("\n"))
	return position{line, 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])}
}
