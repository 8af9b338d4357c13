package access

// Signal tells that facts an earlier decision used have changed: a session
// ended, a device fell out of compliance, the policy is another one. Whatever is
// still open and touched by it is decided on again.
//
// Every field that is not empty narrows the signal. One without any touches
// everything, which is what a new policy does.
type Signal struct {
	// Reason says what happened, for the log and for whoever is cut off.
	Reason Reason
	// Session is the Session.ID concerned.
	Session string
	// Issuer and Subject are the person or machine concerned.
	Issuer, Subject string
	// Device is the Device.ID concerned.
	Device string
	// Route is the id of the route concerned.
	Route string
}

// Touches reports whether a decision on the request may have used facts the
// signal is about.
func (s *Signal) Touches(r *Request) bool {
	return (s.Session == "" || s.Session == r.Session.ID) &&
		(s.Issuer == "" || s.Issuer == r.Identity.Issuer) &&
		(s.Subject == "" || s.Subject == r.Identity.Subject) &&
		(s.Device == "" || s.Device == r.Device.ID) &&
		(s.Route == "" || s.Route == r.Route)
}
