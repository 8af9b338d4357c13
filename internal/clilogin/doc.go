// Package clilogin answers the question: how does a person at a command line
// get an access token?
//
// It is a public OAuth client of its own (RFC 8252): it logs in through a
// browser that comes back to a loopback address, or with a code that is entered
// elsewhere (RFC 8628), and keeps the token in the folder of the person's
// settings. It proves to nobody who the person is: whoever takes the token
// verifies it.
package clilogin
