package tunnel

import "time"

// Granted is what the door answers to the question which tunnels somebody may
// open.
type Granted struct {
	// User is the caller, in a form for people.
	User string `json:"user"`
	// Until is when the caller's credential ends.
	Until   time.Time `json:"until,omitzero"`
	Tunnels []Grant   `json:"tunnels"`
}

// Grant is a tunnel that may be opened now.
type Grant struct {
	// Route is the id of the route.
	Route string `json:"route"`
	// Target is name:port. A name that begins with "*." stands for all names one
	// label below.
	Target string `json:"target"`
}

// Covers reports whether the grant is for a target, a canonical name:port.
func (g Grant) Covers(target string) bool {
	if g.Target == target {
		return true
	}
	rest, wild := cutLabel(g.Target)
	below, ok := cutLabel(target)
	return wild == "*" && ok != "" && rest == below
}

// cutLabel separates the first label of a name.
func cutLabel(name string) (rest, label string) {
	for i := range len(name) {
		if name[i] == '.' {
			return name[i:], name[:i]
		}
	}
	return "", ""
}
