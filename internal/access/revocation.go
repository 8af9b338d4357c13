package access

import "time"

// Revocation says that whatever was issued to somebody, or used from a device,
// before a moment is worth nothing: sessions, access tokens, certificates of
// workloads. What is issued afterwards counts.
type Revocation struct {
	// ID names the revocation, for whoever wants to lift it.
	ID string `json:"id"`
	// Issuer and Subject are the person or machine concerned, User is PROVIDER:SUB
	// for people who read it.
	Issuer  string `json:"iss,omitempty"`
	Subject string `json:"sub,omitempty"`
	User    string `json:"user,omitempty"`
	// Device is the Device.ID concerned; with Issuer, only what people of that
	// issuer use from it is.
	Device string `json:"device,omitempty"`
	// All tells that everybody is concerned.
	All bool `json:"all,omitempty"`

	// At is the moment.
	At time.Time `json:"at"`
	// Until is when the revocation is forgotten. What was issued before At should
	// have ended by itself by then.
	Until time.Time `json:"until"`
	// By and Why are who revoked and the reason they gave.
	By  string `json:"by"`
	Why string `json:"why"`
}
