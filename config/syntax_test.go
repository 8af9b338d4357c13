package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSyntaxFaultsAreFoundWhereTheyAre(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "1:1 : the file is empty"},
		{"comments only", "# nothing\n", "1:1 : the file is empty"},
		{"null", "~", "1:1 : the file is empty"},
		{"only a marker", "---\n", "1:1 : the file is empty"},
		{"second document", "a: 1\n---\nb: 1\n", "2:1 : a second document starts here"},
		{"tab", "a:\n\tb: 1\nc: 2\n", "2:1 : this line is indented with a tab"},
		{"tab after spaces", "a:\n  b: 1\n \tc: 1\n", "3:2 : this line is indented with a tab"},
		{"indented too far", "a: 1\n  b: 2\n", "2:4 : this is not YAML: mapping values are not allowed in this context"},
		{"list left open", "a: [1, 2\nb: 3\nc: 4\n", "1:4 : this is not YAML: did not find expected ',' or ']'"},
		{"mapping left open", "x: 1\na: {b: 1, c: 2\nd: 4\ne: 5\n", "2:4 : this is not YAML: did not find expected ',' or '}'"},
		{"quote left open", "x: 1\na: \"open\nb: 3\nc: 4\n", "2:4 : this is not YAML: found unexpected end of stream"},
		{"between two indentations", "x: 1\nroutes:\n  - id: a\n    from: b\n   to: c\n    d: 1\ne: 1\n", "5:4 : this is not YAML: did not find expected '-' indicator"},
		{"dedented into nothing", "x: 1\na:\n  - b\n c: 3\nd: 4\ne: 5\n", "4:2 : this is not YAML: did not find expected key"},
		{"colon in a value", "x: 1\na: b: c\nd: 1\n", "2:5 : this is not YAML: mapping values are not allowed in this context"},
		{"reserved character", "x: 1\na: @foo\nd: 1\n", "2:4 : this is not YAML: found character that cannot start any token"},
		{"key without value", "x: 1\na\nd: 1\ne: 1\n", "2:1 : this is not YAML: could not find expected ':'"},
		{"text after a quote", "x: 1\ny: 'a'b\nd: 1\ne: 1\n", "2:7 : this is not YAML: did not find expected key"},
		{"closed twice", "x: [a, b]]\nz: 1\n", "1:10 : this is not YAML: did not find expected key"},
		{"control character", "x: 1\ny: a\x01b\n", "2:5 : this is not YAML: control characters are not allowed"},
		{"unknown escape", "x: \"\\q\"\nb: 1\n", "1:4 : this is not YAML: found unknown escape character"},
		{"alias of nothing", "x: 1\ny: *foo\n", "2:4 : this is not YAML: it uses an alias"},
		{"not UTF-8", "x: 1\ny: äö\xff\n", "2:6 : byte 0xff is not UTF-8"},
		{"UTF-16", "\xff\xfex\x00:\x00", "1:1 : the file is encoded as UTF-16"},
		{"too large", "x: " + strings.Repeat("y", maxFile), "0:0 : the file is larger than 8192 KiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problem := parse([]byte(test.text))
			if problem == nil {
				t.Fatal("accepted")
			}
			got, cure, _ := strings.Cut(brief(Problems{*problem}), " | ")
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if cure == "" {
				t.Error("no cure")
			}
		})
	}
}

func TestByteOrderMarkIsIgnored(t *testing.T) {
	root, problem := parse([]byte("\xef\xbb\xbfversion: 1"))
	if problem != nil || root.Content[0].Value != "version" {
		t.Errorf("%v %v", root, problem)
	}
}

// largeFile is the size of the files below. What is read of them takes time in
// proportion to it; the largest that are read at all are some times larger.
const largeFile = 1 << 20

func TestSyntaxSearchIsBounded(t *testing.T) {
	hostile := map[string]string{
		"nested lists":     strings.Repeat("[", largeFile),
		"nested keys":      strings.Repeat("? ", largeFile/2),
		"nested mappings":  strings.Repeat("{a: ", largeFile/4),
		"one endless line": strings.Repeat("a: ", largeFile/3),
		"open list":        "[" + strings.Repeat("a,\n", largeFile/4),
		"open quote":       `"` + strings.Repeat("a\n", largeFile/2-2),
		"late fault":       strings.Repeat("- a\n", largeFile/4-4) + "b",
	}
	for name, text := range hostile {
		start := time.Now()
		if _, problem := parse([]byte(text)); problem == nil {
			t.Errorf("%s: accepted", name)
		}
		if spent := time.Since(start); spent > time.Minute {
			t.Errorf("%s took %v", name, spent)
		} else {
			t.Logf("%s took %v", name, spent)
		}
	}
}

// A file of nothing but mistakes is refused in bounded time and words.
func TestDecodingIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"unknown keys":     manyLines("a%d: 1\n"),
		"misspelt keys":    manyLines("lisd%d: 1\n"),
		"duplicate keys":   strings.Repeat("name: x\n", largeFile/8-1),
		"wrong entries":    "list:\n" + strings.Repeat("- 1\n", largeFile/4-8),
		"faulty rules":     "route:\n allow:\n" + strings.Repeat(" - {nam: 1}\n", largeFile/12-8),
		"one endless word": "wait: " + strings.Repeat("x", largeFile-8),
		"secrets":          "map:\n" + manyLines(" a%d: [x]\n"),
	} {
		start := time.Now()
		_, problems := decodeText(text, "", nil, new(sample))
		if len(problems) == 0 || len(problems) > maxProblems || len(problems.Error()) > maxProblems*1000 {
			t.Errorf("%s: %d problems", name, len(problems))
		}
		if spent := time.Since(start); spent > time.Minute {
			t.Errorf("%s took %v", name, spent)
		} else {
			t.Logf("%s took %v: %v", name, spent, problems[0])
		}
	}
}

// manyLines fills a file with numbered lines.
func manyLines(format string) string {
	var b strings.Builder
	for i := 0; b.Len() < largeFile-100; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}
