package config

import (
	_ "embed"
	"encoding"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/doorward/doorward/internal/access"
)

// Setting is one key of a configuration as it is in force.
type Setting struct {
	// Path is the key with everything it is part of: "routes[0].from".
	Path string
	// Value is what holds, as the file would write it. A secret is only named. Of a
	// default it is what the reference says, empty where that is nothing.
	Value string
	// Line is where the file sets it; 0 for a default.
	Line int
}

// unshown are sections that say nothing about what is served.
var unshown = []string{"tests", "accept"}

// Settings returns every key of the configuration, in the order of the reference,
// with its value and where that comes from. Nothing in it is secret.
func (c *Config) Settings() []Setting {
	w := effective{where: c.where}
	w.section(reflect.ValueOf(&c.File).Elem(), "", defaults()[""])
	return w.list
}

type effective struct {
	where positions
	list  []Setting
}

func (w *effective) section(v reflect.Value, at string, fallbacks map[string]string) {
	for _, key := range Keys(v.Type()) {
		if at == "" && slices.Contains(unshown, key.Name) {
			continue
		}
		name := key.Name
		if at != "" {
			name = at + "." + key.Name
		}
		w.value(v.FieldByIndex(key.Field.Index), name, fallbacks[key.Name])
	}
}

func (w *effective) value(v reflect.Value, at, fallback string) {
	t := v.Type()
	if t.Kind() == reflect.Pointer && !v.IsNil() {
		v, t = v.Elem(), t.Elem()
	}
	switch {
	case t == secretType || ReadsText(t) || !holdsSections(t) || v.IsZero() && t.Kind() != reflect.Struct:
		w.leaf(v, at, fallback)
	case t.Kind() == reflect.Struct:
		w.section(v, at, defaults()[sectionName(t)])
	case t.Kind() == reflect.Slice:
		for i := range v.Len() {
			w.value(v.Index(i), fmt.Sprintf("%s[%d]", at, i), "")
		}
	default: // a map, by name
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, name := range names {
			w.value(v.MapIndex(name), at+"."+name.String(), "")
		}
	}
}

// holdsSections reports whether a type is a section or holds some.
func holdsSections(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return true
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return t.Elem() != secretType && !ReadsText(t.Elem()) && holdsSections(t.Elem())
	}
	return false
}

func (w *effective) leaf(v reflect.Value, at, fallback string) {
	place, written := w.where.of(at)
	if !written {
		w.list = append(w.list, Setting{Path: at, Value: fallback})
		return
	}
	w.list = append(w.list, Setting{at, text(v), place.line})
}

// text writes a value as the file would, and no secret.
func text(v reflect.Value) string {
	if secret, ok := v.Interface().(access.Secret); ok {
		if secret.Env != "" {
			return "{env: " + secret.Env + "}"
		}
		return "{file: " + secret.File + "}"
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if word, err := m.MarshalText(); err == nil {
			return string(word)
		}
	}
	switch v.Kind() {
	case reflect.String:
		return withoutCredentials(v.String())
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return text(v.Elem())
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = text(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		parts := make([]string, 0, v.Len())
		for _, name := range v.MapKeys() {
			parts = append(parts, name.String()+": "+text(v.MapIndex(name)))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Interface:
		if v.IsNil() {
			return ""
		}
		return text(v.Elem())
	}
	return fmt.Sprint(v.Interface())
}

// withoutCredentials takes out of an address what may open something: whatever
// stands before the host, and the values of its query.
func withoutCredentials(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return access.HideTokens(s)
	}
	if u.User != nil {
		u.User = url.User("redacted")
	}
	if u.RawQuery != "" {
		u.RawQuery = "redacted"
	}
	if u.User == nil && u.RawQuery == "" {
		return access.HideTokens(s) // as it was written
	}
	return access.HideTokens(u.String())
}

// sectionName is what the schema calls a section: "proxy.TLSConfig".
func sectionName(t reflect.Type) string { return path.Base(t.PkgPath()) + "." + t.Name() }

//go:embed schema.json
var schemaText []byte

// defaults are what the reference says of keys that are not set: by section, ""
// for the file itself, and by key.
var defaults = sync.OnceValue(func() map[string]map[string]string {
	type properties map[string]struct{ Description string }
	var schema struct {
		Properties properties
		Defs       map[string]struct{ Properties properties } `json:"$defs"`
	}
	if err := json.Unmarshal(schemaText, &schema); err != nil {
		panic(err) // embedded: only a broken build can get here
	}
	all := map[string]map[string]string{}
	add := func(section string, keys properties) {
		all[section] = map[string]string{}
		for key, p := range keys {
			if _, fallback, ok := strings.Cut(p.Description, " Default: "); ok {
				all[section][key] = strings.TrimSuffix(fallback, ".")
			}
		}
	}
	add("", schema.Properties)
	for name, def := range schema.Defs {
		add(name, def.Properties)
	}
	return all
})
