package clilogin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// callbackPath is where the browser comes back to. The port is free; providers
// have to accept any (RFC 8252 §7.3).
const callbackPath = "/callback"

// Login logs in through a browser on this machine: authorization code flow with
// PKCE and a loopback redirect (RFC 8252). It returns when the browser has come
// back or ctx ends.
func (c *Client) Login(ctx context.Context) (Token, error) {
	m, err := c.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	if m.authorization == "" {
		return Token{}, errors.New("the provider offers no login by browser; try --device")
	}
	state, err := c.secret()
	if err != nil {
		return Token{}, err
	}
	verifier, err := c.secret()
	if err != nil {
		return Token{}, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // never a name: another machine must not be asked for it
	if err != nil {
		return Token{}, fmt.Errorf("listening for the browser: %w", err)
	}
	redirect := "http://" + listener.Addr().String() + callbackPath
	back := &callback{state: state, issuer: c.Issuer, issuerRequired: m.callbackIssuer, host: listener.Addr().String(), done: make(chan result, 1)}
	server := &http.Server{Handler: back, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go server.Serve(listener)
	defer func() {
		// The browser still reads its answer.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		server.Shutdown(grace)
		server.Close()
	}()

	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {c.ClientID}, "redirect_uri": {redirect}, "scope": {c.scope(m)}, "state": {state},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if c.Resource != "" {
		query.Set("resource", c.Resource)
	}
	address, err := url.Parse(m.authorization)
	if err != nil {
		return Token{}, err
	}
	for name, values := range address.Query() { // an endpoint may have a query of its own (RFC 6749 §3.1)
		if !query.Has(name) {
			query[name] = values
		}
	}
	address.RawQuery = query.Encode()
	fmt.Fprintf(c.Tell, "Open this address in a browser on this machine to log in:\n\n  %s\n\nOn a machine without one, use --device.\n", address)
	if c.Browser != nil {
		if err := c.Browser(address.String()); err != nil {
			fmt.Fprintf(c.Tell, "The browser could not be opened: %v\n", err)
		}
	}
	select {
	case <-ctx.Done():
		return Token{}, errors.New("nobody logged in in time")
	case got := <-back.done:
		if got.err != nil {
			return Token{}, got.err
		}
		return c.redeem(ctx, m, url.Values{
			"grant_type": {"authorization_code"}, "code": {got.code}, "redirect_uri": {redirect}, "code_verifier": {verifier},
		})
	}
}

// result is what the browser brought.
type result struct {
	code string
	err  error
}

// callback takes the provider's answer from the browser, once. Requests that do
// not know the state are somebody else's and change nothing.
type callback struct {
	state, issuer, host string
	issuerRequired      bool
	done                chan result
}

// ServeHTTP implements http.Handler.
func (b *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet || r.URL.Path != callbackPath || r.Host != b.host {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	got, ok := b.read(r.URL.RawQuery)
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "This is not the answer to the login that is waited for.\n")
		return
	}
	select {
	case b.done <- got:
	default: // answered before
	}
	if got.err != nil {
		io.WriteString(w, "The login did not work. The terminal says why. You can close this window.\n")
		return
	}
	io.WriteString(w, "You are logged in. You can close this window.\n")
}

// read judges an answer (RFC 6749 §4.1.2, RFC 9207 §2.4). It is not ok without
// our state.
func (b *callback) read(query string) (got result, ok bool) {
	form, err := url.ParseQuery(query)
	if err != nil || subtle.ConstantTimeCompare([]byte(form.Get("state")), []byte(b.state)) != 1 {
		return got, false
	}
	for _, values := range form {
		if len(values) > 1 {
			return got, false
		}
	}
	switch {
	case form.Has("iss") && form.Get("iss") != b.issuer, !form.Has("iss") && b.issuerRequired:
		return result{err: errors.New("the answer came from another provider than the one that was asked")}, true
	case form.Has("error"):
		return result{err: &refusal{http.StatusOK, form.Get("error")}}, true
	case form.Get("code") == "":
		return got, false
	}
	return result{code: form.Get("code")}, true
}
