// Package admin answers the question: who is on call?
//
// It serves the admin listener, apart from visitors: whether the process lives
// and is ready, its metrics, and what it is doing, for everybody who reaches it;
// and, for administrators, pages and an API that show who is logged in, what was
// decided and why, and end access. Administrators come by a route of Doorward
// itself, whose assertion names them, or have the token; where neither is
// configured nobody is one.
//
// The listener defends itself against the one client that can be made to ask on
// behalf of somebody else, the browser: names it does not know (DNS rebinding)
// and requests other sites cause are refused.
package admin
