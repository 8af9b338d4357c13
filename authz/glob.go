package authz

import (
	"errors"
	"fmt"
	"strings"
)

// A glob matches canonical request paths. `*` stands for any run of characters
// within one segment, `**` as a whole segment for any number of segments,
// including none: "/export/**" also matches "/export". Everything else,
// including case and a trailing slash, is literal.
type glob struct {
	source   string
	segments []string
}

// anySegments is the segment that stands for any number of segments.
const anySegments = "**"

// maxGlob bounds the source of a glob; a path of an application is far shorter.
const maxGlob = 1024

// parseGlob refuses what could never match a canonical path, because a deny rule
// that silently matches nothing is a hole.
func parseGlob(source string) (glob, error) {
	rest, rooted := strings.CutPrefix(source, "/")
	switch {
	case !rooted:
		return glob{}, errors.New(`must start with "/"`)
	case len(source) > maxGlob:
		return glob{}, fmt.Errorf("is longer than %d characters", maxGlob)
	}
	for _, c := range []byte(source) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`?#[]{}\`, c) >= 0 {
			return glob{}, fmt.Errorf("contains %q, which no path matches; only * and ** are special", c)
		}
	}
	segments := strings.Split(rest, "/")
	for _, s := range segments {
		switch {
		case s == "." || s == "..":
			return glob{}, fmt.Errorf("contains the segment %q, which no path matches", s)
		case s != anySegments && strings.Contains(s, "**"):
			return glob{}, fmt.Errorf("has ** inside the segment %q; ** must stand alone between slashes", s)
		}
	}
	return glob{source: source, segments: segments}, nil
}

// match reports whether path matches. It works through the path once and, on a
// mismatch, lets the last `**` swallow one more segment; an earlier one need
// never be tried again, because the last one can swallow whatever it could. The
// cost is at most the product of both lengths.
func (g *glob) match(path string) bool {
	rest, at := path, 0
	star, resume := -1, ""
	for rest != "" {
		if at < len(g.segments) && g.segments[at] == anySegments {
			star, resume = at, rest
			at++
			continue
		}
		segment, tail, ok := nextSegment(rest)
		if !ok {
			return false
		}
		if at < len(g.segments) && matchSegment(g.segments[at], segment) {
			rest, at = tail, at+1
			continue
		}
		if star < 0 {
			return false
		}
		_, resume, _ = nextSegment(resume)
		rest, at = resume, star+1
	}
	for at < len(g.segments) && g.segments[at] == anySegments {
		at++
	}
	return at == len(g.segments) && path != ""
}

// nextSegment splits "/a/b" into "a" and "/b". It fails where the path does not
// start with a slash.
func nextSegment(path string) (segment, tail string, ok bool) {
	if path == "" || path[0] != '/' {
		return "", "", false
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : i+1], path[i+1:], true
	}
	return path[1:], "", true
}

// matchSegment matches one segment against a pattern in which `*` stands for any
// run of characters, also none.
func matchSegment(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p, i = p+1, i+1
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
