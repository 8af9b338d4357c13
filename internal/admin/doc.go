// Package admin answers the question: who is on call?
//
// It serves the admin listener, apart from visitors: whether the process lives
// and is ready, its metrics, and what it is doing. Everything there is read-only.
// The listener has no login, so it defends itself against the one client that
// can be made to ask on behalf of somebody else, the browser: names it does not
// know (DNS rebinding) and requests other sites cause are refused.
package admin
