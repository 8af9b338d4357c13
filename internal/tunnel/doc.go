// Package tunnel answers the question: how do the bytes of a TCP connection
// travel over HTTP?
//
// It holds both halves. What they share is the Stream: the HTTP side of one
// tunnel, as capsules (connect-tcp), as WebSocket messages, or as bare bytes
// (classic CONNECT). Door is the client: it opens tunnels and serves local
// programs with them. Who may open one is decided elsewhere.
package tunnel
