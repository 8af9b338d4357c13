package authz

// What two globs have to do with each other. Both answers are sound: disjoint
// globs share no path, and a glob that is covered matches nothing that the other
// does not. That is what an analysis may rely on; a relation that cannot be
// proved is not reported.

// prefixGlob matches a path and all below it, as a route's prefix does.
func prefixGlob(prefix string) (glob, bool) {
	g, err := parseGlob(prefix + "/" + anySegments)
	return g, err == nil
}

// covers reports whether every path that matches n matches g too.
func (g *glob) covers(n *glob) bool {
	return newGrid(len(g.segments), len(n.segments)).answer(0, 0, func(i, j int, rest func(i, j int) bool) bool {
		switch wide, narrow := g.segments[i:], n.segments[j:]; {
		case len(wide) == 0:
			return len(narrow) == 0
		case wide[0] == anySegments:
			return rest(i+1, j) || len(narrow) > 0 && rest(i, j+1)
		case len(narrow) == 0 || narrow[0] == anySegments:
			return false
		default:
			// A star of the narrow one is a character that only a star can take.
			return matchSegment(wide[0], narrow[0]) && rest(i+1, j+1)
		}
	})
}

// disjoint reports whether no path matches both.
func (g *glob) disjoint(n *glob) bool {
	return !newGrid(len(g.segments), len(n.segments)).answer(0, 0, func(i, j int, rest func(i, j int) bool) bool {
		switch a, b := g.segments[i:], n.segments[j:]; {
		case len(a) == 0 && len(b) == 0:
			return true
		case len(a) > 0 && a[0] == anySegments:
			return rest(i+1, j) || len(b) > 0 && rest(i, j+1)
		case len(b) > 0 && b[0] == anySegments:
			return rest(i, j+1) || len(a) > 0 && rest(i+1, j)
		case len(a) == 0 || len(b) == 0:
			return false
		default:
			return segmentsMeet(a[0], b[0]) && rest(i+1, j+1)
		}
	})
}

// segmentsMeet reports whether some segment matches both patterns.
func segmentsMeet(p, q string) bool {
	return newGrid(len(p), len(q)).answer(0, 0, func(i, j int, rest func(i, j int) bool) bool {
		switch a, b := p[i:], q[j:]; {
		case a == "" && b == "":
			return true
		case a != "" && a[0] == '*':
			return rest(i+1, j) || b != "" && rest(i, j+1)
		case b != "" && b[0] == '*':
			return rest(i, j+1) || a != "" && rest(i+1, j)
		default:
			return a != "" && b != "" && a[0] == b[0] && rest(i+1, j+1)
		}
	})
}

// grid remembers the answers for pairs of places, so that each is found once.
type grid struct {
	width int
	known []int8 // 1 yes, -1 no
}

func newGrid(a, b int) *grid { return &grid{width: b + 1, known: make([]int8, (a+1)*(b+1))} }

func (g *grid) answer(i, j int, ask func(i, j int, rest func(i, j int) bool) bool) bool {
	at := i*g.width + j
	if g.known[at] == 0 {
		g.known[at] = -1
		if ask(i, j, func(i, j int) bool { return g.answer(i, j, ask) }) {
			g.known[at] = 1
		}
	}
	return g.known[at] > 0
}

// covers reports whether every path that matches n matches p too.
func (p paths) covers(n paths) bool {
	for i := range n {
		if !p.coversOne(&n[i]) {
			return false
		}
	}
	return true
}

func (p paths) coversOne(n *glob) bool {
	for i := range p {
		if p[i].covers(n) {
			return true
		}
	}
	return false
}

func (p paths) disjoint(n paths) bool {
	for i := range p {
		for j := range n {
			if !p[i].disjoint(&n[j]) {
				return false
			}
		}
	}
	return true
}
