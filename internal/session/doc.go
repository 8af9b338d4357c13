// Package session answers the question: which login does this cookie stand for?
//
// A login is the record of one authentication: the identity, the provider's
// tokens, when it began and when it ends. A ticket is one cookie on one origin
// that points to a login. The browser holds 32 random bytes and nothing else;
// the store keeps the login under its own id and the ticket under the SHA-256
// of the cookie, so that neither can be found from the other's content.
//
// Tokens are sealed with the login's data key. Each ticket keeps that key sealed
// under a key derived from its cookie, and nobody else keeps it: the store alone
// opens no token, and neither does a copy of it.
//
//	login/ID            loginRecord
//	ticket/HASH         ticketRecord    HASH = SHA-256 of the cookie
//	code/HASH           codeRecord      hand-over codes, single use, 60 s
//	user/HASH/ID        index: the logins of one issuer and subject
//	sid/HASH/ID         index: the logins of one issuer and provider session
//	revoked/ID          access.Revocation: what was issued before it is refused
//	key/master          what Key derives from, unless the configuration has one
//
// A login has ended when its record is gone, whatever else is left.
package session
