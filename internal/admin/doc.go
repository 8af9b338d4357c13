// Package admin answers the question: who is on call?
//
// It serves the admin listener, apart from visitors: whether the process lives
// and is ready, its metrics, and what it is doing, for everybody who reaches it;
// and the API that shows who is logged in and ends access, for whoever has the
// token. Without a configured token there is no such API.
//
// The listener defends itself against the one client that can be made to ask on
// behalf of somebody else, the browser: names it does not know (DNS rebinding)
// and requests other sites cause are refused.
package admin
