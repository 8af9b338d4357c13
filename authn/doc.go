// Package authn answers the question: who?
//
// It sends visitors to their OpenID provider and takes them back (authorization
// code flow with PKCE, state, nonce and issuer identification, none of which can
// be switched off), verifies ID tokens, keeps the providers' metadata and keys,
// hands a login over from the login host to the applications' hosts, refreshes
// identities, and logs out. Sessions themselves belong to package session.
//
// One flow is one file: login.go starts a login, callback.go ends it,
// handover.go carries it to another host, logout.go, backchannel.go and
// frontchannel.go (logouts by the provider) and refresh.go speak for themselves.
// flow.go is the memory of logins in flight, which lives in the visitor's
// browser, sealed.
//
// Machines bring a credential with every request: bearer.go finds it and keeps
// what was found out about it, accesstoken.go, introspect.go and kubernetes.go
// find it out, proof.go makes sure that a bound token is sent by its holder, and
// svid.go recognises workloads by their certificates.
//
// Nothing a browser sends decides anything: the return address is checked when
// it comes in and sealed until it is used, and whether a step-up succeeded is
// read from the ID token, never from the URL that asked for it.
package authn
