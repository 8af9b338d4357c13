package config

import (
	"encoding"
	"reflect"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Key is one key that a section's type gives to the file. The decoder and the
// generator of the reference both read the types through Keys, so that neither
// knows a key the other does not.
type Key struct {
	// Name is the key as the file spells it.
	Name string
	// Field is the struct field behind it; Field.Index is relative to the type
	// given to Keys, also for fields of embedded structs.
	Field reflect.StructField
	// Owner is the struct type that declares the field.
	Owner reflect.Type
	// NamesFile tells that the value is the path of a file that must be readable
	// when the configuration is loaded (tag `doorward:"file"`).
	NamesFile bool
}

// Keys returns the keys of a section's struct type in the order of its fields.
// Fields without a yaml tag and unexported ones belong to the code alone; the
// fields of structs tagged `yaml:",inline"` count as the section's own.
func Keys(section reflect.Type) []Key {
	var keys []Key
	for i := range section.NumField() {
		field := section.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if options == "inline" {
			for _, key := range Keys(field.Type) {
				key.Field.Index = append([]int{i}, key.Field.Index...)
				keys = append(keys, key)
			}
			continue
		}
		if name == "" {
			continue
		}
		keys = append(keys, Key{name, field, section, field.Tag.Get("doorward") == "file"})
	}
	return keys
}

var (
	secretType          = reflect.TypeFor[access.Secret]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// ReadsText reports whether values of the type are read from one word or text
// by their own UnmarshalText.
func ReadsText(t reflect.Type) bool {
	return t != secretType && reflect.PointerTo(t).Implements(textUnmarshalerType)
}
