package main

import (
	"encoding/json"
	"path"
	"reflect"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

// schema is a JSON Schema (draft 2020-12) under construction. Encoding it sorts
// the keys, so that the file changes only when the configuration does.
type schema map[string]any

// schemaMaker collects one definition per section type.
type schemaMaker struct {
	comments    *comments
	definitions schema
}

// makeSchema describes the whole file for editors.
func makeSchema(c *comments) ([]byte, error) {
	m := &schemaMaker{c, schema{}}
	root, err := m.section(reflect.TypeFor[config.File]())
	if err != nil {
		return nil, err
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Doorward configuration"
	root["$defs"] = m.definitions
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

// section describes a struct, key by key.
func (m *schemaMaker) section(t reflect.Type) (schema, error) {
	properties := schema{}
	var required []string
	for _, key := range config.Keys(t) {
		e, err := m.comments.entry(key)
		if err != nil {
			return nil, err
		}
		property, err := m.value(key.Field.Type, e)
		if err != nil {
			return nil, err
		}
		property["description"] = e.meaning
		if e.fallback != "" {
			property["description"] = e.meaning + " Default: " + e.fallback + "."
		}
		properties[key.Name] = property
		if e.required {
			required = append(required, key.Name)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	return s, nil
}

// value describes what may stand behind a key. The result is the caller's to
// add a description to.
func (m *schemaMaker) value(t reflect.Type, e entry) (schema, error) {
	switch t {
	case reflect.TypeFor[access.Duration]():
		return schema{"type": "string", "pattern": `^([0-9]+d|0|([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h))+)$`}, nil
	case reflect.TypeFor[access.Rate]():
		return schema{"type": "string", "pattern": `^(none|[1-9][0-9]*/[smh])$`}, nil
	case reflect.TypeFor[access.Tri]():
		return schema{"enum": []any{"yes", "no", "unknown", true, false}}, nil
	case reflect.TypeFor[config.Instant]():
		return schema{"type": "string", "format": "date-time"}, nil
	case reflect.TypeFor[access.Secret]():
		s, err := m.reference(t)
		if err == nil {
			secret := m.definitions[definition(t)].(schema)
			secret["minProperties"], secret["maxProperties"] = 1, 1
		}
		return s, err
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.value(t.Elem(), e)
	case reflect.Slice:
		items, err := m.value(t.Elem(), e)
		return schema{"type": "array", "items": items}, err
	case reflect.Map:
		elements, err := m.value(t.Elem(), e)
		return schema{"type": "object", "additionalProperties": elements}, err
	case reflect.Struct:
		s, err := m.reference(t)
		if config.ReadsText(t) {
			return schema{"oneOf": []any{schema{"type": "string"}, s}}, err
		}
		return s, err
	case reflect.Interface:
		return schema{}, nil
	case reflect.Bool:
		return schema{"type": "boolean"}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		if !config.ReadsText(t) {
			return schema{"type": "integer"}, nil
		}
	}
	words, err := m.comments.words(t, e)
	if len(words) > 0 {
		return schema{"enum": words}, err
	}
	return schema{"type": "string"}, err
}

// reference points to the definition of a section type, made on first use.
func (m *schemaMaker) reference(t reflect.Type) (schema, error) {
	name := definition(t)
	if _, ok := m.definitions[name]; !ok {
		m.definitions[name] = nil // a section may contain itself
		s, err := m.section(t)
		if err != nil {
			return nil, err
		}
		m.definitions[name] = s
	}
	return schema{"$ref": "#/$defs/" + name}, nil
}

// definition names a type within the schema: "access.Route".
func definition(t reflect.Type) string { return path.Base(t.PkgPath()) + "." + t.Name() }
