// Package spoe answers the question: how does HAProxy ask, and how is it told?
//
// HAProxy has no subrequests, but it can send what it knows of a request to an
// agent (Stream Processing Offload Engine) and set variables to what the agent
// says. The package is that agent: the frames of the protocol (SPOP 2.0), and one
// message, which becomes a proxy.Question. Nothing is decided here.
package spoe
