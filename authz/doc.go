// Package authz answers the question: may they?
//
// Compile turns the routes, groups and device profiles of the configuration
// into a Policy and reports every mistake at once. Policy.Decide then answers
// one access.Request without input, output, clock or global state: the same
// Request gives the same Decision today, in a test and when it is read back
// from the audit log. Policy.Explain is the same walk with a recorder attached.
//
// Conditions know three answers: hit, miss and unknown. Unknown never opens
// anything. An allow rule with an unknown condition does not allow, a deny rule
// with an unknown condition (and no miss) denies, and no requirement is met by
// a fact that is missing, stale or unknown.
package authz
