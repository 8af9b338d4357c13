package authz

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// didYouMean returns a cure for a name that is not in names: the closest one, or
// the list of what there is while it is short.
func didYouMean(name string, names []string) string {
	if meant := access.Closest(name, names); meant != "" {
		return "did you mean " + strconv.Quote(meant) + "?"
	}
	if len(names) > 0 && len(names) <= 8 {
		return "known: " + strings.Join(names, ", ")
	}
	return ""
}

// keys returns the sorted keys of a map, so that faults come in a stable order.
func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
