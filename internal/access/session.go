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
	// Kept is what stays in memory with the session, if anything does.
	Kept *Kept `json:"-"`
}

// SessionInfo is what an operator may know of a session. Nothing in it opens
// anything.
type SessionInfo struct {
	Session
	// User is PROVIDER:SUB.
	User     string `json:"user"`
	Provider string `json:"provider"`
	Issuer   string `json:"iss"`
	Email    string `json:"email,omitempty"`
	// EmailVerified tells that the provider vouches for the address.
	EmailVerified bool   `json:"email_verified,omitempty"`
	Name          string `json:"name,omitempty"`
	// Login is how and when the person proved who they are.
	Login Login `json:"login,omitzero"`
	// Used is the last use, some minutes inexact.
	Used time.Time `json:"last_used,omitzero"`
	// Origins are the addresses the session was opened at, sorted.
	Origins []string `json:"origins,omitempty"`
	// Open is how many requests of it are open at the replica that was asked:
	// connections, streams, transfers.
	Open int `json:"open"`
}
