package clilogin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	grantDevice    = "urn:ietf:params:oauth:grant-type:device_code"
	deviceInterval = 5 * time.Second // where the provider names none (RFC 8628 §3.2)
	slowDown       = 5 * time.Second // more, each time it asks for it (§3.5)
	deviceLifetime = 10 * time.Minute
)

// LoginDevice logs in with a code that the person enters in a browser anywhere
// (RFC 8628). It returns when that has happened or the code has expired.
func (c *Client) LoginDevice(ctx context.Context) (Token, error) {
	m, err := c.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	if m.device == "" {
		return Token{}, errors.New("the provider offers no login by device code; try without --device")
	}
	form := url.Values{"scope": {c.scope(m)}}
	if c.Resource != "" {
		form.Set("resource", c.Resource)
	}
	doc, err := c.post(ctx, m.device, form)
	if err != nil {
		return Token{}, err
	}
	code, user, page := doc.text("device_code"), doc.text("user_code"), doc.text("verification_uri")
	if code == "" || !printable(user) || !printable(page) || checkAddress(page, c.Issuer) != nil {
		return Token{}, errors.New("the provider's answer holds no code to enter")
	}
	fmt.Fprintf(c.Tell, "Open this address in a browser, on any device:\n\n  %s\n\nand enter the code  %s\n", page, user)
	if complete := doc.text("verification_uri_complete"); printable(complete) && checkAddress(complete, c.Issuer) == nil {
		fmt.Fprintf(c.Tell, "\nor open, and compare the code:\n\n  %s\n", complete)
	}
	end := c.Now().Add(doc.seconds("expires_in", deviceLifetime))
	pause := doc.seconds("interval", deviceInterval)
	for c.Now().Before(end) {
		if err := c.Wait(ctx, pause); err != nil {
			return Token{}, errors.New("nobody logged in in time")
		}
		t, err := c.redeem(ctx, m, url.Values{"grant_type": {grantDevice}, "device_code": {code}})
		refused, ok := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			return t, nil
		case ok && refused.code == "authorization_pending":
		case ok && refused.code == "slow_down":
			pause += slowDown
		case !ok && ctx.Err() == nil: // the network: ask less often (§3.5)
			pause *= 2
		default:
			return Token{}, err
		}
	}
	return Token{}, &refusal{code: "expired_token"}
}

// printable keeps what a provider says from steering the terminal.
func printable(s string) bool {
	return s != "" && len(s) <= 2048 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
