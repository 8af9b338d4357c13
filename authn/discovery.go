package authn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// metadata is what a provider says about itself (OpenID Connect Discovery §3,
// RFC 8414), as far as we act on it. Every address in it has been checked.
type metadata struct {
	authorization, token, jwks string
	userinfo, endSession       string // may be empty
	introspection              string // may be empty
	// issuer is set where the configuration does not tell: for a cluster.
	issuer string

	// algorithms sign its ID tokens.
	algorithms []string
	// callbackIssuer tells that every callback carries iss (RFC 9207).
	callbackIssuer bool
	// claimsParameter tells that it understands the claims parameter (OpenID
	// Connect Core §5.5).
	claimsParameter bool

	// par takes pushed authorization requests (RFC 9126), "" if there is no such
	// endpoint; parRequired tells that it takes no others.
	par         string
	parRequired bool
	// dpopAlgorithms sign DPoP proofs, assertionAlgorithms assertions of clients;
	// nil if it does not say.
	dpopAlgorithms, assertionAlgorithms []string
	// mtls are the endpoints for clients with a certificate where they differ
	// (RFC 8705 §5).
	mtls struct{ token, userinfo, par, introspection string }
}

// seenBy returns the metadata as they hold for one client of the provider.
func (m *metadata) seenBy(p *Provider) *metadata {
	own := *m
	if p.ClientAuth.method() == clientAuthMTLS {
		own.token, own.userinfo = cmp.Or(m.mtls.token, m.token), cmp.Or(m.mtls.userinfo, m.userinfo)
		own.par, own.introspection = cmp.Or(m.mtls.par, m.par), cmp.Or(m.mtls.introspection, m.introspection)
	}
	own.callbackIssuer = m.callbackIssuer || p.fapi2() // FAPI 2.0 §5.3.2.2 leaves no choice
	return &own
}

// discover reads the metadata of an issuer. They must name the very issuer that
// was asked for, or anyone who can answer for one address could speak for another.
func discover(ctx context.Context, client *http.Client, issuer *url.URL, spelled string) (*metadata, error) {
	doc, err := jose.GetJSON(ctx, client, strings.TrimSuffix(spelled, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m, err := parseMetadata(doc, issuer, spelled)
	if err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", spelled, err)
	}
	return m, nil
}

func parseMetadata(doc jose.Object, issuer *url.URL, spelled string) (*metadata, error) {
	var m metadata
	named, err := doc.Text("issuer")
	if err != nil {
		return nil, err
	}
	if named != spelled {
		return nil, fmt.Errorf("they are those of another issuer, %q", named)
	}
	for _, endpoint := range []struct {
		name     string
		to       *string
		required bool
	}{
		{"authorization_endpoint", &m.authorization, true},
		{"token_endpoint", &m.token, true},
		{"jwks_uri", &m.jwks, true},
		{"userinfo_endpoint", &m.userinfo, false},
		{"end_session_endpoint", &m.endSession, false},
		{"introspection_endpoint", &m.introspection, false},
		{"pushed_authorization_request_endpoint", &m.par, false},
	} {
		address, err := doc.Text(endpoint.name)
		if err != nil {
			return nil, err
		}
		if address == "" && !endpoint.required {
			continue
		}
		if err := checkEndpoint(address, issuer); err != nil {
			return nil, fmt.Errorf("%s: %w", endpoint.name, err)
		}
		*endpoint.to = address
	}
	if m.algorithms, err = doc.Texts("id_token_signing_alg_values_supported"); err != nil {
		return nil, err
	}
	if len(m.algorithms) == 0 {
		m.algorithms = []string{"RS256"} // the one every provider has to support
	}
	if m.callbackIssuer, err = doc.Flag("authorization_response_iss_parameter_supported"); err != nil {
		return nil, err
	}
	if m.claimsParameter, err = doc.Flag("claims_parameter_supported"); err != nil {
		return nil, err
	}
	return &m, m.parseClientFeatures(doc, issuer)
}

// parseClientFeatures reads what a provider says about clients beyond OpenID
// Connect's own: RFC 9126 §5, RFC 9449 §5.1, RFC 8414 §2 and RFC 8705 §5.
func (m *metadata) parseClientFeatures(doc jose.Object, issuer *url.URL) (err error) {
	if m.parRequired, err = doc.Flag("require_pushed_authorization_requests"); err != nil {
		return err
	}
	if m.dpopAlgorithms, err = doc.Texts("dpop_signing_alg_values_supported"); err != nil {
		return err
	}
	if m.assertionAlgorithms, err = doc.Texts("token_endpoint_auth_signing_alg_values_supported"); err != nil {
		return err
	}
	value, present := doc["mtls_endpoint_aliases"]
	if !present {
		return nil
	}
	members, ok := value.(map[string]any)
	if !ok {
		return errors.New("mtls_endpoint_aliases is not an object")
	}
	for name, to := range map[string]*string{
		"token_endpoint": &m.mtls.token, "userinfo_endpoint": &m.mtls.userinfo,
		"pushed_authorization_request_endpoint": &m.mtls.par, "introspection_endpoint": &m.mtls.introspection,
	} {
		if *to, err = jose.Object(members).Text(name); err != nil {
			return err
		}
		if *to == "" {
			continue
		}
		if err := checkEndpoint(*to, issuer); err != nil {
			return fmt.Errorf("mtls_endpoint_aliases: %s: %w", name, err)
		}
	}
	return nil
}

// checkEndpoint accepts https, and plain http only on this machine and only for
// an issuer that is itself reached that way.
func checkEndpoint(address string, issuer *url.URL) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return errors.New("it is missing or no address")
	}
	if u.User != nil || strings.Contains(address, "#") {
		return errors.New("it holds a user name or a fragment")
	}
	if u.Scheme == "https" || u.Scheme == "http" && issuer.Scheme == "http" && access.Loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s is not https", u.Redacted())
}

// accepted returns the algorithms that both the configuration and the provider accept.
func (m *metadata) accepted(p *Provider) []string {
	return slices.DeleteFunc(slices.Clone(p.algorithms()), func(alg string) bool {
		return !slices.Contains(m.algorithms, alg)
	})
}
