package authn

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Provider is one entry of `providers`: an OpenID provider visitors log in with.
type Provider struct {
	// ID names the provider in rules (`PROVIDER:SUB`), groups and logs. Required:
	// lower-case letters, digits, `-` and `_`. Changing it changes who everyone is.
	ID string `yaml:"id"`
	// Issuer is the provider's issuer URL, exactly as the provider spells it:
	// `https://login.corp.example.com`. Its metadata are read from
	// ISSUER/.well-known/openid-configuration. Required; plain http only on
	// this machine, for trials. `kubernetes` stands for the service accounts of a
	// cluster, see `kubernetes`; `x509` for workloads that show a client certificate
	// with an id of the SPIFFE `trust_domain`, issued by an authority in `ca`.
	Issuer string `yaml:"issuer"`
	// Name is what visitors read when they choose where to log in. Default: the id.
	Name string `yaml:"name"`

	// ClientID is the name under which Doorward is registered with the provider.
	// Required for logins and for introspection.
	ClientID string `yaml:"client_id"`
	// ClientSecret proves that we are that client, where client_auth is `basic` or `post`.
	ClientSecret access.Secret `yaml:"client_secret"`
	// ClientAuth says how the proof is sent: `basic` (client_secret_basic, the
	// default), `post` (client_secret_post), or `none` for a public client,
	// which PKCE alone protects. Stronger, because no secret is ever sent, are a
	// key, `{private_key_jwt: {file: PATH}}`, and a certificate, `{mtls: {cert:
	// FILE, key: FILE}}`.
	ClientAuth ClientAuth `yaml:"client_auth"`
	// PAR sends authorization requests to the provider directly (RFC 9126), so
	// that nobody at the browser can read or change them. Always done where the
	// provider's metadata require it.
	PAR bool `yaml:"par"`
	// DPoP binds tokens to a key of the session (RFC 9449): stolen, they are of no use.
	DPoP bool `yaml:"dpop"`
	// Profile `fapi2` turns on everything that the FAPI 2.0 Security Profile
	// asks of a client: par, dpop (unless client_auth is a certificate), an
	// issuer in every callback and no RS256. It needs client_auth with a key or
	// a certificate.
	Profile string `yaml:"profile"`

	// Scopes are asked for at login; `openid` is added where it is missing. Add
	// `offline_access` where the provider gives refresh tokens only for it.
	// Default: `[openid, email, profile]`.
	Scopes []string `yaml:"scopes"`
	// GroupsClaim is the ID token claim that lists the groups of a person. Default `groups`.
	GroupsClaim string `yaml:"groups_claim"`
	// EmailDomains are the domains whose people log in here: a visitor who types
	// such an address is sent to this provider. They say nothing about who may enter.
	EmailDomains []string `yaml:"email_domains"`
	// Trust says which statements of the provider count.
	Trust Trust `yaml:"trust"`
	// Assurance says what the provider's words for a login are worth: `entra`,
	// `okta`, `keycloak`, `google`, or a table of your own. Default: a class
	// (`acr`) that is itself the name of a level counts as that level.
	Assurance Assurance `yaml:"assurance"`

	// Algorithms are the signature algorithms accepted in its tokens, of RS256,
	// PS256, ES256 and EdDSA, as far as the provider announces them. Default: all
	// four, without RS256 under the profile `fapi2`.
	Algorithms []string `yaml:"algorithms"`
	// CA is a PEM file with the certificate authorities to trust for this
	// provider instead of the system's.
	CA string `yaml:"ca" doorward:"file"`

	MachineTokens `yaml:",inline"`
}

// Trust says which statements of a provider count.
type Trust struct {
	// Groups is `all` (the default) or `none`: with `none` the provider's group
	// claims are ignored, so that a partner cannot name itself into a group.
	Groups string `yaml:"groups"`
}

// OfGroups reports whether the provider's word about groups counts.
func (t Trust) OfGroups() bool { return t.Groups != trustNone }

// The accepted values of the fields above.
const (
	trustAll  = "all"
	trustNone = "none"
)

// Validate reports every mistake in the provider's own fields. It reads no file
// and asks no network.
func (p Provider) Validate(f access.Faults) {
	if !isProviderID(p.ID) {
		f.At("id").Add("write lower-case letters, digits, - and _, such as corp", "%q cannot be the id of a provider", p.ID)
	}
	p.validateTokens(f)
	if _, err := parseIssuer(p.Issuer); err != nil && p.Issuer != kubernetesIssuer && p.Issuer != x509Issuer {
		f.At("issuer").Add("write it as the provider's metadata do, such as https://login.corp.example.com", "%s", err)
	}
	if p.ClientID == "" && p.registered() {
		f.At("client_id").Add("register Doorward with the provider and enter the id it gives", "the client id is missing")
	}
	if p.registered() {
		p.validateClient(f)
	}
	for i, scope := range p.Scopes {
		if !isScope(scope) {
			f.At("scopes[%d]", i).Add("write one scope per entry", "%q is not a scope", scope)
		}
	}
	for i, domain := range p.EmailDomains {
		if !isDomain(domain) {
			f.At("email_domains[%d]", i).Add("write it in lower case without @, such as partner.example.net", "%q is not a mail domain", domain)
		}
	}
	switch p.Trust.Groups {
	case "", trustAll, trustNone:
	default:
		f.At("trust").At("groups").Add("choose all or none", "%q does not say which groups to trust", p.Trust.Groups)
	}
	p.Assurance.Validate(f.At("assurance"))
	for i, alg := range p.Algorithms {
		if !slices.Contains(jose.Algorithms(), alg) {
			f.At("algorithms[%d]", i).Add("choose from "+strings.Join(jose.Algorithms(), ", "), "%q is not accepted as a signature algorithm", alg)
		}
	}
}

// Public reports whether we are a client without a secret there, which programs
// on people's machines can be as well.
func (p *Provider) Public() bool { return p.ClientAuth.method() == clientAuthNone }

// IssuerName is the Issuer of the identities the provider vouches for.
func (p *Provider) IssuerName() string {
	if p.Issuer == x509Issuer {
		return "spiffe://" + p.TrustDomain
	}
	return p.Issuer
}

// displayName is what visitors read.
func (p *Provider) displayName() string {
	if p.Name != "" {
		return p.Name
	}
	return p.ID
}

func (p *Provider) groupsClaim() string {
	if p.GroupsClaim != "" {
		return p.GroupsClaim
	}
	return "groups"
}

func (p *Provider) scopes() []string {
	if len(p.Scopes) == 0 {
		return []string{"openid", "email", "profile"}
	}
	if slices.Contains(p.Scopes, "openid") {
		return p.Scopes
	}
	return slices.Concat([]string{"openid"}, p.Scopes)
}

func (p *Provider) algorithms() []string {
	if len(p.Algorithms) == 0 && p.fapi2() {
		return []string{"PS256", "ES256", "EdDSA"} // FAPI 2.0 §5.4.1
	}
	if len(p.Algorithms) == 0 {
		return jose.Algorithms()
	}
	return p.Algorithms
}

// parseIssuer accepts an issuer URL (OpenID Connect Discovery §2): https without
// query and fragment. Plain http never leaves the machine.
func parseIssuer(issuer string) (*url.URL, error) {
	if issuer == "" {
		return nil, errors.New("the issuer is missing")
	}
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not an issuer URL", issuer)
	}
	switch {
	case u.User != nil || strings.ContainsAny(issuer, "?#"):
		return nil, fmt.Errorf("the issuer %q has more than scheme, host and path", u.Redacted())
	case u.Scheme == "https" || u.Scheme == "http" && access.Loopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, fmt.Errorf("the issuer %q is reached without TLS, so anyone on the way could log in as anyone", issuer)
	}
	return nil, fmt.Errorf("the issuer %q is not an https URL", issuer)
}

func isProviderID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
}

// isScope follows RFC 6749 §3.3.
func isScope(scope string) bool {
	return scope != "" && !strings.ContainsFunc(scope, func(c rune) bool {
		return c <= ' ' || c > '~' || c == '"' || c == '\\'
	})
}

func isDomain(domain string) bool {
	return domain != "" && len(domain) <= 253 && domain == strings.ToLower(domain) &&
		!strings.ContainsAny(domain, "@/ :*") && strings.Trim(domain, ".") == domain && !strings.Contains(domain, "..")
}
