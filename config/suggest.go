package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// homes lists for every key the sections below t that have it, as paths such as
// "routes[].upstream_tls". A key in the wrong place is often one that is
// indented too little.
func homes(t reflect.Type) map[string][]string {
	found := map[string][]string{}
	seen := map[reflect.Type]bool{}
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		switch t.Kind() {
		case reflect.Pointer:
			walk(t.Elem(), path)
		case reflect.Slice:
			walk(t.Elem(), path+"[]")
		case reflect.Map:
			walk(t.Elem(), path+".NAME")
		case reflect.Struct:
			if seen[t] || t == secretType {
				return
			}
			seen[t] = true
			for _, key := range Keys(t) {
				found[key.Name] = append(found[key.Name], path)
				walk(key.Field.Type, join(path, key.Name))
			}
		}
	}
	walk(t, "")
	return found
}

// didYouMean words the cure for an unknown name: the likely one, or all that
// are valid.
func didYouMean(word string, candidates []string) (meant, cure string) {
	if meant = access.Closest(word, candidates); meant != "" {
		return meant, "did you mean " + meant + "?"
	}
	if len(candidates) == 0 {
		return "", "remove it"
	}
	sorted := slices.Sorted(slices.Values(candidates))
	return "", "valid here: " + strings.Join(sorted, ", ")
}
