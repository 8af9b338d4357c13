// Package jose answers the question: did they say this, and only this?
//
// It reads what providers and transmitters sign and publish: JSON objects in
// which no name occurs twice (ParseObject), tokens in compact form (Parse,
// CheckHeader, Verify), key sets that are kept fresh without flooding anyone
// (KeySet), and documents that are fetched with bounds (Document, GetJSON).
// What the claims mean is judged by whoever reads them.
package jose
