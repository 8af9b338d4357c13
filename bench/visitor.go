package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// visitor is a person with a browser, as far as logging in takes one.
type visitor struct{ client *http.Client }

// newVisitor returns one who is logged in nowhere.
func newVisitor() *visitor {
	jar, _ := cookiejar.New(nil) // it has no error without options
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		var d net.Dialer // browsers look up *.localhost without asking anybody
		return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	return &visitor{&http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: inFlight}}}
}

// localhost is the host of a name at an address.
func localhost(name, address string) string {
	_, port, _ := strings.Cut(address, ":")
	return name + ".localhost:" + port
}

// logIn opens an address, logs in on the way there, and returns the cookies that
// the host of the address has then.
func (v *visitor) logIn(ctx context.Context, target string) (http.Header, error) {
	res, body, err := v.send(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	if flow := flowField.FindStringSubmatch(body); flow != nil {
		form := url.Values{"flow": {flow[1]}, "username": {person}, "password": {"bench"}}
		action := *res.Request.URL
		action.Path, action.RawQuery = "/login", ""
		if res, body, err = v.send(ctx, http.MethodPost, action.String(), form); err != nil {
			return nil, err
		}
	}
	if res.StatusCode != http.StatusOK || res.Request.URL.String() != target {
		return nil, fmt.Errorf("the login ended at %s with %d: %.300s", res.Request.URL, res.StatusCode, body)
	}
	at, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	var pairs []string
	for _, cookie := range v.client.Jar.Cookies(at) {
		pairs = append(pairs, cookie.Name+"="+cookie.Value)
	}
	if len(pairs) == 0 {
		return nil, errors.New("the login has left no cookie")
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}, nil
}

// flowField is the hidden field of the provider's form.
var flowField = regexp.MustCompile(`name="flow" value="([^"]*)"`)

// send follows redirects.
func (v *visitor) send(ctx context.Context, method, target string, form url.Values) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	}
	res, err := v.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 2<<20))
	return res, string(body), err
}

// again returns somebody else's browser in which the provider remembers this
// person, so that a login asks for no password.
func (v *visitor) again(provider string) (*visitor, error) {
	at, err := url.Parse(provider)
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	jar.SetCookies(at, v.client.Jar.Cookies(at))
	return &visitor{&http.Client{Jar: jar, Timeout: time.Minute, Transport: v.client.Transport}}, nil
}
