// Package e2e answers the question: does it work for the people who use it? It
// holds stories that run the real binaries, a real browser and an independent
// identity provider.
package e2e
