package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is out of date: run `go generate ./config` (%v)", name, err)
		}
	}
}

// A link of the reference that leads nowhere would show a renamed section.
func TestReferenceLinksLeadSomewhere(t *testing.T) {
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	text := string(files["docs/config.md"])
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		if a := anchor(heading[1]); anchors[a] {
			t.Errorf("two headings %s", heading[1])
		} else {
			anchors[a] = true
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if !anchors[link[1]] {
			t.Errorf("#%s leads nowhere", link[1])
		}
	}
}

// readSchema returns the schema as editors read it.
func readSchema(t *testing.T) (root map[string]any) {
	t.Helper()
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(files["config/schema.json"], &root); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSchemaIsStrict(t *testing.T) {
	root := readSchema(t)
	definitions := root["$defs"].(map[string]any)
	objects := 0
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["properties"] != nil && v["type"] == "object" {
				objects++
				if v["additionalProperties"] != false {
					t.Errorf("%s allows unknown keys", at)
				}
			}
			if ref, ok := v["$ref"].(string); ok && definitions[strings.TrimPrefix(ref, "#/$defs/")] == nil {
				t.Errorf("%s refers to %s, which is missing", at, ref)
			}
			for key, inner := range v {
				walk(at+"/"+key, inner)
			}
		case []any:
			for _, inner := range v {
				walk(at, inner)
			}
		}
	}
	walk("", root)
	if objects < 10 {
		t.Errorf("%d sections", objects)
	}
}

// What the decoder accepts in the examples, an editor accepts as well; what it
// refuses, an editor marks.
func TestSchemaAgreesWithTheExamples(t *testing.T) {
	root := readSchema(t)
	check := func(text []byte) []string {
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		return checker{root}.check("", root, value)
	}
	names, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.yaml") {
			continue // tests only
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range check(text) {
			t.Errorf("%s%s", name, fault)
		}
	}
	for _, text := range []string{
		"version: '1'", "server: {}", "version: 1\nrutes: []", "version: 1\nroutes: {}", "version: 1\nsessions: {idle: soon}",
		"version: 1\nsessions: {key: hunter2}", "version: 1\nsessions: {key: {}}", "version: 1\nsessions: {key: {file: a, env: B}}",
		"version: 1\ndevices: {on_unavailable: [deny]}", "version: 1\ngroups: {a: {users: x}}",
	} {
		if len(check([]byte(text))) == 0 {
			t.Errorf("accepted: %s", text)
		}
	}
}

// checker evaluates the part of JSON Schema that the generator writes.
type checker struct{ root map[string]any }

func (c checker) check(at string, s map[string]any, value any) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, at+": "+fmt.Sprintf(format, args...)) }
	if ref, ok := s["$ref"].(string); ok {
		definitions := c.root["$defs"].(map[string]any)
		faults = append(faults, c.check(at, definitions[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), value)...)
	}
	if choices, ok := s["oneOf"].([]any); ok {
		fit := 0
		for _, choice := range choices {
			if len(c.check(at, choice.(map[string]any), value)) == 0 {
				fit++
			}
		}
		if fit != 1 {
			fault("fits %d of the alternatives", fit)
		}
	}
	if words, ok := s["enum"].([]any); ok && !slices.Contains(words, value) {
		fault("%v is none of %v", value, words)
	}
	kind := map[reflect.Kind]string{reflect.Map: "object", reflect.Slice: "array", reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer"}[reflect.ValueOf(value).Kind()]
	if want, ok := s["type"].(string); ok && want != kind {
		fault("%T is no %s", value, want)
	}
	switch value := value.(type) {
	case map[string]any:
		properties, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := value[name.(string)]; !ok {
				fault("%s is missing", name)
			}
		}
		if least, ok := s["minProperties"].(float64); ok && float64(len(value)) < least {
			fault("too few keys")
		}
		if most, ok := s["maxProperties"].(float64); ok && float64(len(value)) > most {
			fault("too many keys")
		}
		for name, inner := range value {
			if property, ok := properties[name].(map[string]any); ok {
				faults = append(faults, c.check(at+"."+name, property, inner)...)
			} else if others, ok := s["additionalProperties"].(map[string]any); ok {
				faults = append(faults, c.check(at+"."+name, others, inner)...)
			} else if s["additionalProperties"] == false {
				fault("unknown key %s", name)
			}
		}
	case []any:
		if items, ok := s["items"].(map[string]any); ok {
			for i, inner := range value {
				faults = append(faults, c.check(fmt.Sprintf("%s[%d]", at, i), items, inner)...)
			}
		}
	case string:
		if pattern, ok := s["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
			fault("%q does not match", value)
		}
	}
	return faults
}

func TestComments(t *testing.T) {
	type sample struct {
		ID        string `yaml:"id"`
		ClientKey string `yaml:"client_key"`
		From      string `yaml:"from"`
	}
	for _, test := range []struct {
		field, comment string
		want           entry
	}{
		{"ID", "ID names the thing. Required, unique.", entry{"Names the thing. Unique.", "", true}},
		{"ID", "ID names it. Required: letters and digits. More.", entry{"Names it. Letters and digits. More.", "", true}},
		{"ID", "ID names it. Required with `sources`.", entry{"Names it. Required with `sources`.", "", false}},
		{"ID", "ID is the name, such as `1.3`. Default `1.3`.", entry{"The name, such as `1.3`.", "`1.3`", false}},
		{"ID", "ID is the name. Default: the id. More.", entry{"The name. More.", "the id", false}},
		{"ID", "ID is the name. Required. Default `x`.", entry{"The name.", "`x`", true}},
		{"ID", "ID is `post` or `basic` (as the standard says, the default).", entry{"`post` or `basic` (as the standard says, the default).", "`basic`", false}},
		{"From", "From and ClientKey belong together. From there it goes.", entry{"`from` and `client_key` belong together. From there it goes.", "", false}},
		{"ClientKey", "ClientKey is a file.", entry{"A file.", "", false}},
	} {
		c := newComments("../..")
		typ := reflect.TypeFor[sample]()
		for _, key := range config.Keys(typ) {
			if key.Field.Name != test.field {
				continue
			}
			c.fields[typ.PkgPath()+".sample."+test.field] = test.comment
			c.parsed[typ.PkgPath()] = true
			if got, err := c.entry(key); err != nil || got != test.want {
				t.Errorf("%q reads %+v, %v", test.comment, got, err)
			}
		}
	}
	if _, err := newComments("../..").entry(config.Keys(reflect.TypeFor[sample]())[0]); err == nil {
		t.Error("a key without a comment has no entry")
	}
	words, err := newComments("../..").words(reflect.TypeFor[access.Mode](), entry{fallback: "`enforce`"})
	if err != nil || !slices.Equal(words, []string{"enforce", "report"}) {
		t.Errorf("words of a mode: %v, %v", words, err)
	}
}
