package access

import "time"

// Session is what a decision may know of a browser session. The secret that
// opens it stays in the visitor's cookie; tokens stay sealed in the store.
// The zero value is no session.
type Session struct {
	// ID names the session in logs and for operators. It is derived from the
	// store key and opens nothing.
	ID string `json:"id,omitempty"`
	// Created is when the visitor logged in at this door.
	Created time.Time `json:"created,omitzero"`
	// Expires is the absolute end, whatever the visitor does.
	Expires time.Time `json:"expires,omitzero"`
}
