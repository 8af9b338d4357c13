package signals

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Transmitter is one entry of `signals`: a party that reports changes (OpenID
// Shared Signals Framework 1.0), such as an identity provider or a device
// management.
type Transmitter struct {
	// ID names the transmitter in logs and metrics: lower-case letters, digits,
	// `-` and `_`. Required, unique.
	ID string `yaml:"id"`
	// Issuer is the transmitter's issuer URL, exactly as it spells it. Its
	// configuration is read from /.well-known/ssf-configuration there. Required.
	Issuer string `yaml:"issuer"`
	// Providers lists the identity providers whose people its events may be
	// about. Nobody can end the sessions of anybody else's people. Required,
	// unless there is one provider only.
	Providers []string `yaml:"providers"`
	// Devices lets its events be about devices and their certificates. Those belong
	// to no provider, so it may lock out any of them. Default false: such events
	// are recorded and lead to nothing.
	Devices bool `yaml:"devices"`
	// Delivery says how events arrive: `push` (RFC 8935, to /.doorward/signals) or
	// `poll` (RFC 8936). Default `push`.
	Delivery string `yaml:"delivery"`
	// Endpoint is the address that events are pushed to, as the transmitter reaches
	// it. Default: /.doorward/signals on the host of server.auth_url.
	Endpoint string `yaml:"endpoint"`
	// PushSecret is the whole value of the header Authorization that pushed events
	// carry, such as `Bearer …`. Required for `push`.
	PushSecret access.Secret `yaml:"push_secret"`
	// PollURL is the address to ask for events where the stream was set up by
	// hand. Default: the stream's own.
	PollURL string `yaml:"poll_url"`
	// Audience is what its tokens must name as `aud`. Default: what the stream
	// says, which needs a way to ask (`token` or `client_id`).
	Audience string `yaml:"audience"`

	// Token is an access token for managing the stream.
	Token access.Secret `yaml:"token"`
	// ClientID and ClientSecret get access tokens at TokenURL (client credentials,
	// RFC 6749 §4.4), where there is no `token`. With neither, the stream has to be set up by hand.
	ClientID string `yaml:"client_id"`
	// ClientSecret belongs to ClientID.
	ClientSecret access.Secret `yaml:"client_secret"`
	// TokenURL is the token endpoint for ClientID.
	TokenURL string `yaml:"token_url"`
	// Scopes are asked for with ClientID. Default `[ssf.manage]`.
	Scopes []string `yaml:"scopes"`

	// Events lists the types of events to ask for, by the last part of their name,
	// such as `session-revoked`. Default: all that lead to something here.
	Events []string `yaml:"events"`
	// Actions changes what single types of events lead to: `end` ends the logins
	// concerned, `reauthenticate` makes them count as no login wherever one of a
	// certain strength or age is required, `ignore` only records the event.
	Actions map[string]string `yaml:"actions"`
	// MaxSessions is how many logins the transmitter may end or lower within ten
	// minutes; a device or a certificate that it objects to counts as one. What goes
	// beyond is recorded, counted and reported as an error, and not carried out.
	// Default 1000.
	MaxSessions int `yaml:"max_sessions"`
	// CA is a PEM file with the certificate authorities to trust for this
	// transmitter instead of the system's.
	CA string `yaml:"ca" doorward:"file"`
}

const defaultMaxSessions = 1000

func (c *Transmitter) polls() bool { return c.Delivery == "poll" }

// managed reports whether we can speak to the transmitter about our stream.
func (c *Transmitter) managed() bool { return !c.Token.IsZero() || c.ClientID != "" }

func (c *Transmitter) maxSessions() int {
	if c.MaxSessions == 0 {
		return defaultMaxSessions
	}
	return c.MaxSessions
}

// choice returns what a type of event leads to.
func (c *Transmitter) choice(k *kind) action {
	if chosen, ok := c.Actions[k.name]; ok {
		return action(chosen)
	}
	return k.does
}

// wanted are the addresses of the event types to ask for.
func (c *Transmitter) wanted() (uris []string) {
	for i := range kinds {
		k := &kinds[i]
		if k.family == ssf || c.choice(k) == ignore {
			continue
		}
		if len(c.Events) == 0 || slices.Contains(c.Events, k.name) {
			uris = append(uris, k.uri())
		}
	}
	return uris
}

// Validate reports every mistake in the transmitter's own fields.
func (c *Transmitter) Validate(f access.Faults) {
	if c.ID == "" || len(c.ID) > 64 || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		f.At("id").Add("write lower-case letters, digits, - and _, such as corp", "%q cannot be the id of a transmitter", c.ID)
	}
	address(f.At("issuer"), c.Issuer, true)
	c.validateDelivery(f)
	c.validateManagement(f)
	for i, event := range c.Events {
		if !slices.Contains(kindNames(), event) {
			f.At("events[%d]", i).Add(meant(event), "%q is no type of event", event)
		}
	}
	for event, does := range c.Actions {
		at := f.At("actions").At("%s", event)
		if !slices.Contains(kindNames(), event) {
			at.Add(meant(event), "%q is no type of event", event)
		}
		if !slices.Contains([]action{end, reauthenticate, ignore}, action(does)) {
			at.Add("write end, reauthenticate or ignore", "%q is nothing to do", does)
		}
	}
	if c.MaxSessions < 0 {
		f.At("max_sessions").Add("write how many logins one storm of events may end", "a negative number")
	}
}

func (c *Transmitter) validateDelivery(f access.Faults) {
	switch c.Delivery {
	case "", "push":
		if c.PushSecret.IsZero() {
			f.At("push_secret").Add("add push_secret: {file: PATH} with the value of the Authorization header", "anybody could push events")
		}
		if c.PollURL != "" {
			f.At("poll_url").Add("remove it, or write delivery: poll", "events are pushed")
		}
	case "poll":
		if !c.PushSecret.IsZero() {
			f.At("push_secret").Add("remove it", "events are polled")
		}
		if c.Endpoint != "" {
			f.At("endpoint").Add("remove it", "events are polled")
		}
		if c.PollURL == "" && !c.managed() {
			f.At("poll_url").Add("add it, or token so that we can ask", "nobody tells where to poll")
		}
	default:
		f.At("delivery").Add("write push or poll", "%q is no way to deliver events", c.Delivery)
	}
	for _, optional := range [][2]string{{"endpoint", c.Endpoint}, {"poll_url", c.PollURL}} {
		if optional[1] != "" {
			address(f.At("%s", optional[0]), optional[1], false)
		}
	}
}

func (c *Transmitter) validateManagement(f access.Faults) {
	switch {
	case !c.Token.IsZero() && c.ClientID != "":
		f.At("token").Add("keep token or client_id", "there are two ways to prove who we are")
	case c.ClientID != "":
		if c.ClientSecret.IsZero() {
			f.At("client_secret").Add("add client_secret: {file: PATH}", "the client has no secret")
		}
		address(f.At("token_url"), c.TokenURL, true)
	case c.TokenURL != "" || !c.ClientSecret.IsZero() || len(c.Scopes) > 0:
		f.At("client_id").Add("add it", "token_url, client_secret and scopes belong to a client")
	case c.Token.IsZero() && c.Audience == "":
		f.At("audience").Add("write the aud of its tokens, or add token so that we can ask", "nobody tells which tokens are for us")
	}
}

// address reports what is not https, or http on this machine for trials.
func address(f access.Faults, text string, required bool) {
	if text == "" && required {
		f.Add("write it as the transmitter does, such as https://login.corp.example.com", "the address is missing")
		return
	}
	if err := checkAddress(text); err != nil {
		f.Add("write an https:// address", "%s", err)
	}
}

func checkAddress(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return fmt.Errorf("%.100q is no address", text)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%s holds a user name or a fragment", u.Redacted())
	case u.Scheme == "https" || u.Scheme == "http" && access.Loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s is not https", u.Redacted())
}

// meant is the cure for a type of event that there is not.
func meant(event string) string {
	if like := access.Closest(event, kindNames()); like != "" {
		return "did you mean " + like + "?"
	}
	return "known: " + strings.Join(kindNames(), ", ")
}
