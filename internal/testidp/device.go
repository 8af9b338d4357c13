package testidp

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// The device authorization grant (RFC 8628): a program without a browser shows
// a code, and a person enters it in a browser elsewhere.
const (
	grantDevice    = "urn:ietf:params:oauth:grant-type:device_code"
	deviceLifetime = 10 * time.Minute
	// userCodeLetters cannot be taken for one another or make words (§6.1).
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8
)

// device is one request of a program to be logged in. The methods of Provider
// guard it by mu.
type device struct {
	client   *Client
	scope    scopes
	userCode string
	polled   time.Time
	// refused or session tell what the person did.
	refused bool
	session *session
	acr     string
}

// Loopback accepts redirect addresses of programs on the visitor's own machine:
// http, a loopback address, any port, and this path (RFC 8252 §7.3).
func Loopback(path string) func(string) bool {
	return func(uri string) bool {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != path {
			return false
		}
		ip, err := netip.ParseAddr(u.Hostname())
		return err == nil && ip.IsLoopback() && u.Port() != ""
	}
}

// deviceAuthorization answers RFC 8628 §3.1.
func (p *Provider) deviceAuthorization(w http.ResponseWriter, r *http.Request) {
	client, err := p.authenticate(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	d := &device{client: client, scope: strings.Fields(r.PostForm.Get("scope")), userCode: p.userCode()}
	if !d.scope.has("openid") {
		p.fail(w, r, refuse("invalid_scope", "scope openid is missing"))
		return
	}
	secret := p.secret()
	now := p.options.Now()
	p.mu.Lock()
	p.devices.put(digest(secret), d, now.Add(deviceLifetime), now)
	p.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": secret, "user_code": d.userCode,
		"verification_uri":          p.at("device"),
		"verification_uri_complete": withQuery(p.at("device"), url.Values{"user_code": {d.userCode}}),
		"expires_in":                int(deviceLifetime / time.Second), "interval": int(p.options.DeviceInterval / time.Second),
	})
}

// userCode returns a code that is easy to type, as ABCD-EFGH.
func (p *Provider) userCode() string {
	random := p.secret()
	var code strings.Builder
	for i := range userCodeLength {
		if i == userCodeLength/2 {
			code.WriteByte('-')
		}
		code.WriteByte(userCodeLetters[int(random[i])%len(userCodeLetters)])
	}
	return code.String()
}

// byUserCode finds a device that still waits. The caller holds p.mu.
func (p *Provider) byUserCode(code string) (*device, bool) {
	code = strings.ToUpper(strings.TrimSpace(code))
	now := p.options.Now()
	for name := range p.devices {
		if d, ok := p.devices.get(name, now); ok && d.userCode == code && d.session == nil && !d.refused {
			return d, true
		}
	}
	return nil, false
}

type devicePage struct{ Code, Error string }

// enterCode asks for the code (RFC 8628 §3.3). Also where the address brought
// it along, the person compares and confirms it (§5.4).
func (p *Provider) enterCode(w http.ResponseWriter, r *http.Request) {
	p.render(w, http.StatusOK, "device", devicePage{Code: r.URL.Query().Get("user_code")})
}

// device takes the form with the code and begins an ordinary login.
func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	code := r.PostFormValue("user_code")
	p.mu.Lock()
	d, ok := p.byUserCode(code)
	if ok && r.PostFormValue("refuse") != "" {
		d.refused = true
	}
	p.mu.Unlock()
	switch {
	case !ok:
		p.render(w, http.StatusUnprocessableEntity, "device", devicePage{Code: code, Error: "That code is not right, or was used before."})
		return
	case d.refused:
		p.render(w, http.StatusOK, "device-done", "The program was not logged in.")
		return
	}
	id := p.secret()
	f := &flow{id: id, authRequest: &authRequest{client: d.client, scope: d.scope, maxAge: -1}, device: d}
	now := p.options.Now()
	p.mu.Lock()
	p.flows.put(digest(id), f, now.Add(flowLifetime), now)
	p.mu.Unlock()
	p.proceed(w, r, f)
}

// finishDevice ends the login of a program in the browser.
func (p *Provider) finishDevice(w http.ResponseWriter, d *device, v visitor, acr string, err error) {
	if err != nil {
		p.errorPage(w, "The login did not work: "+err.Error())
		return
	}
	p.mu.Lock()
	s := *v.session
	d.session, d.acr = &s, acr
	p.mu.Unlock()
	p.options.Log.Info("logged in", "client", d.client.ID, "user", v.user.Username, "acr", acr)
	p.render(w, http.StatusOK, "device-done", fmt.Sprintf("You are logged in as %s on your device. You can close this page.", v.user.Username))
}

// redeemDevice answers a program that asks whether its person is done (§3.4).
func (p *Provider) redeemDevice(client *Client, form url.Values) (*issued, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.options.Now()
	name := digest(form.Get("device_code"))
	d, ok := p.devices.get(name, now)
	if !ok {
		return nil, refuse("expired_token", "the device code is unknown, used or outdated")
	}
	early := !d.polled.IsZero() && now.Sub(d.polled) < p.options.DeviceInterval
	d.polled = now
	switch {
	case d.client != client:
		return nil, refuse("invalid_grant", "the device code belongs to another client")
	case d.refused:
		delete(p.devices, name)
		return nil, refuse("access_denied", "the person refused")
	case early:
		return nil, refuse("slow_down", "asked again too soon")
	case d.session == nil:
		return nil, refuse("authorization_pending", "the person is not done yet")
	}
	delete(p.devices, name)
	u, ok := p.user(d.session.Subject)
	if !ok {
		return nil, refuse("invalid_grant", "the user is gone")
	}
	return p.issue(digest(p.secret())[:22], grant{
		Client: client.ID, Subject: u.Subject, SID: d.session.SID, Scope: strings.Join(d.scope, " "),
		ACR: d.acr, AuthTime: d.session.AuthTime,
	}, u, ""), nil
}
