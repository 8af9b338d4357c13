package clilogin

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Options say with which provider to log in, and as which client.
type Options struct {
	// Issuer is the provider's issuer URL, ClientID a public client that is
	// registered there. Both are required.
	Issuer, ClientID string
	// Scopes are asked for. Default: openid, and offline_access where the
	// provider announces it.
	Scopes []string
	// Resource is what the token is for (RFC 8707). Empty: the provider decides.
	Resource string
	// Tell takes what the person has to read. Required.
	Tell io.Writer
	// Browser opens an address. Nil: the person does.
	Browser func(address string) error

	// Transport reaches the provider. Default: http.DefaultTransport.
	Transport http.RoundTripper
	// Now is the clock, Rand the source of secrets, Wait a pause that ends with
	// its context. Defaults: time.Now, crypto/rand.Reader, a timer.
	Now  func() time.Time
	Rand io.Reader
	Wait func(context.Context, time.Duration) error
}

// Client logs one person in with one provider.
type Client struct {
	Options
	http *http.Client
}

const (
	maxAnswer   = 1 << 20 // bytes
	callTimeout = 30 * time.Second
)

// New returns a client. The error says which option cannot be used.
func New(opts Options) (*Client, error) {
	if err := checkAddress(opts.Issuer, ""); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	if opts.ClientID == "" {
		return nil, errors.New("the client id is missing")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Wait == nil {
		opts.Wait = wait
	}
	return &Client{opts, &http.Client{
		Transport: opts.Transport, Timeout: callTimeout,
		// A provider speaks for its own address, and codes go nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the provider redirects elsewhere") },
	}}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkAddress accepts https, and plain http only on this machine, for an issuer
// that is itself reached that way.
func checkAddress(address, issuer string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%.200q is no address such as https://login.example.com", address)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()) && (issuer == "" || strings.HasPrefix(issuer, "http:")):
		return nil
	}
	return fmt.Errorf("%.200q is reached without TLS", address)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// metadata is what the provider says about itself, as far as we act on it.
type metadata struct {
	authorization, token, device string // authorization and device may be empty
	scopes                       []string
	callbackIssuer               bool // every callback carries iss (RFC 9207)
}

// discover reads the provider's metadata (OpenID Connect Discovery §4).
func (c *Client) discover(ctx context.Context) (*metadata, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return nil, err
	}
	status, doc, err := c.call(req)
	if err != nil {
		return nil, fmt.Errorf("the provider %s: %w", c.Issuer, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the provider %s answered %d to the question for its metadata", c.Issuer, status)
	}
	if doc.text("issuer") != c.Issuer {
		return nil, fmt.Errorf("the metadata are those of another issuer, %.200q; write the issuer exactly so if that is the one you mean", doc.text("issuer"))
	}
	m := &metadata{
		authorization: doc.text("authorization_endpoint"), token: doc.text("token_endpoint"), device: doc.text("device_authorization_endpoint"),
		callbackIssuer: doc["authorization_response_iss_parameter_supported"] == true,
	}
	for _, address := range []string{m.authorization, m.token, m.device} {
		if address == "" && address != m.token {
			continue
		}
		if err := checkAddress(address, c.Issuer); err != nil {
			return nil, fmt.Errorf("the provider's metadata: %w", err)
		}
	}
	scopes, _ := doc["scopes_supported"].([]any)
	for _, scope := range scopes {
		if text, ok := scope.(string); ok {
			m.scopes = append(m.scopes, text)
		}
	}
	return m, nil
}

// scope is what to ask for.
func (c *Client) scope(m *metadata) string {
	if len(c.Scopes) > 0 {
		return strings.Join(c.Scopes, " ")
	}
	if slices.Contains(m.scopes, "offline_access") {
		return "openid offline_access"
	}
	return "openid"
}

// answer is a JSON object of the provider's. Its members are found by their
// exact names, which a struct would not insist on.
type answer map[string]any

func (a answer) text(name string) string {
	s, _ := a[name].(string)
	return s
}

// seconds returns a number of seconds, or def where there is none that makes sense.
func (a answer) seconds(name string, def time.Duration) time.Duration {
	n, ok := a[name].(float64)
	if !ok || n < 1 || n > 366*24*3600 {
		return def
	}
	return time.Duration(n) * time.Second
}

func (c *Client) call(req *http.Request) (status int, doc answer, err error) {
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, err
	}
	doc, err = parseAnswer(body)
	if err != nil && resp.StatusCode == http.StatusOK {
		return 0, nil, err
	}
	return resp.StatusCode, doc, nil
}

// parseAnswer reads exactly one JSON object.
func parseAnswer(body []byte) (answer, error) {
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	var doc answer
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
		return nil, errors.New("the answer is no JSON object")
	}
	return doc, nil
}

// refusal is an error response (RFC 6749 §5.2).
type refusal struct {
	status int
	code   string
}

func (e *refusal) Error() string {
	switch e.code {
	case "":
		return fmt.Sprintf("the provider answered %d", e.status)
	case "access_denied":
		return "the login was refused"
	case "expired_token":
		return "the code was not entered in time"
	case "unauthorized_client", "invalid_client":
		return "the provider does not know this client id as a public client that may log in this way (" + e.code + ")"
	}
	return fmt.Sprintf("the provider answered %.60q", e.code)
}

// post sends a form of this client and returns the answer, or a *refusal.
func (c *Client) post(ctx context.Context, address string, form url.Values) (answer, error) {
	form.Set("client_id", c.ClientID)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, doc, err := c.call(req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &refusal{status, doc.text("error")}
	}
	return doc, nil
}

// redeem asks the token endpoint for a token.
func (c *Client) redeem(ctx context.Context, m *metadata, form url.Values) (Token, error) {
	if c.Resource != "" {
		form.Set("resource", c.Resource)
	}
	doc, err := c.post(ctx, m.token, form)
	if err != nil {
		return Token{}, err
	}
	if kind := doc.text("token_type"); !strings.EqualFold(kind, "Bearer") {
		return Token{}, fmt.Errorf("the provider gave a token of type %.20q, which curl cannot use", kind)
	}
	t := Token{
		Issuer: c.Issuer, ClientID: c.ClientID, Resource: c.Resource, Access: doc.text("access_token"), Refresh: doc.text("refresh_token"),
		Expires: c.Now().Add(doc.seconds("expires_in", time.Hour)).UTC().Truncate(time.Second),
	}
	if t.Access == "" || strings.ContainsFunc(t.Access, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Token{}, errors.New("the provider gave no usable access token")
	}
	return t, nil
}

// Refresh renews a token (RFC 6749 §6). ErrNotLoggedIn: the provider has ended
// the login.
func (c *Client) Refresh(ctx context.Context, old Token) (Token, error) {
	if old.Refresh == "" {
		return Token{}, ErrNotLoggedIn
	}
	m, err := c.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	t, err := c.redeem(ctx, m, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old.Refresh}})
	if refused, ok := errors.AsType[*refusal](err); ok && refused.code == "invalid_grant" {
		return Token{}, ErrNotLoggedIn
	}
	if err != nil {
		return Token{}, err
	}
	if t.Refresh == "" {
		t.Refresh = old.Refresh // it need not change
	}
	return t, nil
}

// secret returns 32 random bytes, as 43 characters.
func (c *Client) secret() (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(c.Rand, b[:]); err != nil {
		return "", fmt.Errorf("no randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}
