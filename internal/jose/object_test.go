package jose

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
)

func FuzzStrictJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, `{"a":{"b":[1,null,true,"x"]}}`, `{"a":1}{`, `{"a":1e999}`, "{\"\\ud800\":1}", `{"a"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, err := ParseObject(data)
		if err != nil {
			return
		}
		var plain map[string]any
		if err := json.Unmarshal(data, &plain); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
			t.Fatalf("%q is accepted here only: %v", data, err)
		}
		if plain != nil && len(plain) != len(obj) {
			t.Fatalf("%q has %d members, read %d", data, len(plain), len(obj))
		}
		for _, name := range []string{"a", "exp"} {
			obj.Text(name)
			obj.Texts(name)
			obj.TextOrTexts(name)
			obj.Flag(name)
			if at, ok, err := obj.Time(name); ok && err == nil && (at.Before(time.Unix(0, 0)) || at.Year() > 9999) {
				t.Fatalf("%q: %s", data, at)
			}
		}
		if _, err := json.Marshal(Plain(map[string]any(maps.Clone(obj)))); err != nil {
			t.Fatal(err)
		}
	})
}
