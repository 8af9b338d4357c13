package authz

import "strings"

// Bounds on versions; real ones have up to four parts of up to five digits.
const (
	maxVersionParts  = 8
	maxVersionDigits = 9
)

// compareVersions compares dotted numbers part by part, as numbers; parts that
// are not written are zero. It fails where one of them is anything else.
func compareVersions(a, b string) (order int, ok bool) {
	for range maxVersionParts {
		var x, y int
		var okA, okB bool
		x, a, okA = versionPart(a)
		y, b, okB = versionPart(b)
		switch {
		case !okA || !okB:
			return 0, false
		case order == 0 && x != y:
			order = 1
			if x < y {
				order = -1
			}
		}
		if a == "" && b == "" {
			return order, true
		}
		// An exhausted version goes on as zero.
		a, b = orZero(a), orZero(b)
	}
	return 0, false
}

func orZero(version string) string {
	if version == "" {
		return "0"
	}
	return version
}

// versionPart splits the first number off a version: "10.0.9" into 10 and "0.9".
func versionPart(version string) (n int, rest string, ok bool) {
	part, rest, more := strings.Cut(version, ".")
	if part == "" || len(part) > maxVersionDigits || more && rest == "" {
		return 0, "", false
	}
	for _, c := range []byte(part) {
		if c < '0' || c > '9' {
			return 0, "", false
		}
		n = n*10 + int(c-'0')
	}
	return n, rest, true
}

// validVersion reports whether a version is dotted numbers.
func validVersion(version string) bool {
	_, ok := compareVersions(version, "0")
	return ok
}
