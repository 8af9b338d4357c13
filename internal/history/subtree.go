package history

import (
	"maps"
	"slices"
	"strings"
)

// subtrees are the parts of an application that were used: for each first
// segment, what all paths below it have in common.
type subtrees struct {
	common map[string][]string // by first segment: the segments all paths share
	// wide is set where no list of globs would be worth reading, or where a path
	// was spelled in a way that globs do not decide.
	wide bool
}

func (s *subtrees) saw(path string, ambiguous bool) {
	if s.wide = s.wide || ambiguous || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, `;%\`) || strings.Contains(path, "//"); s.wide {
		return
	}
	s.join(strings.Split(path[1:], "/"))
}

func (s *subtrees) join(segments []string) {
	if s.common == nil {
		s.common = map[string][]string{}
	}
	have, known := s.common[segments[0]]
	switch {
	case known:
		n := 0
		for n < len(have) && n < len(segments) && have[n] == segments[n] {
			n++
		}
		s.common[segments[0]] = have[:n]
	case len(s.common) >= maxSubtrees:
		s.wide = true
	default:
		s.common[segments[0]] = segments
	}
}

func (s *subtrees) add(more *subtrees) {
	s.wide = s.wide || more.wide
	for _, first := range slices.Sorted(maps.Keys(more.common)) {
		s.join(more.common[first])
	}
}

// most is how many subtrees are still narrower than the whole in a way that
// somebody would write down.
const most = 4

// globs returns globs for what was used, with room to move: of each subtree the
// part above is allowed as well, since people will open its neighbours. It fails
// where that is no narrower than everything, and where somebody opened the home
// page: whoever starts there will follow links to anywhere.
func (s *subtrees) globs() (globs []string, ok bool) {
	if s.wide || len(s.common) == 0 || len(s.common) > most {
		return nil, false
	}
	for _, first := range slices.Sorted(maps.Keys(s.common)) {
		if first == "" {
			return nil, false
		}
		shared := s.common[first]
		if len(shared) > 1 {
			shared = shared[:len(shared)-1]
		}
		path := "/" + strings.Join(shared, "/")
		if strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`?#[]{}*`, c) }) {
			return nil, false
		}
		globs = append(globs, path+"/**")
	}
	return globs, true
}

// within reports whether everything that a glob of ours matches is matched by
// one of a rule's. It knows prefixes and literal paths, and says no where it
// would have to think.
func within(ours string, rules []string) bool {
	return len(rules) == 0 || slices.ContainsFunc(rules, func(rule string) bool {
		if rule == "/**" || rule == ours {
			return true
		}
		prefix, whole := strings.CutSuffix(rule, "/**")
		return whole && !strings.Contains(prefix, "*") && (strings.TrimSuffix(ours, "/**") == prefix || strings.HasPrefix(ours, prefix+"/"))
	})
}
