package access

import "strings"

// Closest returns the candidate that a misspelt word most likely means, or the
// empty string. Case, dashes and underscores are no difference.
func Closest(word string, candidates []string) string {
	// A key of the file is short; anything longer is no spelling mistake.
	if len(word) > 64 {
		return ""
	}
	plain := flatten(word)
	best, least := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if d := distance(plain, flatten(c)); d < least {
			best, least = c, d
		}
	}
	if best != "" {
		return best
	}
	// "claims_groups" and "groups" share no spelling but a word.
	for _, c := range candidates {
		if len(c) > 3 && len(plain) > 3 && (strings.Contains(plain, flatten(c)) || strings.Contains(flatten(c), plain)) {
			return c
		}
	}
	return ""
}

// flatten removes what people vary in keys: case, dashes and underscores.
func flatten(s string) string {
	return separators.Replace(strings.ToLower(s))
}

var separators = strings.NewReplacer("-", "", "_", "", " ", "")

// distance counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, above := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range above {
		above[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, above[j+1]+1, above[j]+cost)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(y)]
}
