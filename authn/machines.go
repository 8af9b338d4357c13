package authn

import (
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// MachineTokens are the keys of a provider that concern access tokens sent with
// requests, as machines and command line tools do.
type MachineTokens struct {
	// Audiences are the audiences (`aud`) whose access tokens are accepted. Empty:
	// no access tokens of this provider are, and its people log in only.
	Audiences []string `yaml:"audiences"`
	// Interactive tells whether people can log in with this provider. Default
	// true; false for `issuer: kubernetes` and `issuer: x509`.
	Interactive *bool `yaml:"interactive"`
	// InsecureAnyTokenType also accepts access tokens that do not say that they
	// are (RFC 9068 wants `typ` at+jwt), as those of Entra or Keycloak. Then
	// nothing but the audience and the claims tells them from other tokens.
	InsecureAnyTokenType bool `yaml:"insecure_any_token_type"`
	// LoginClients are the ids of clients that only people use, such as that of
	// `doorward login`. Other access tokens are a person's only if they say when or
	// how the person logged in (`auth_time`, `amr`).
	LoginClients []string `yaml:"login_clients"`
	// Introspection asks the provider about tokens.
	Introspection Introspection `yaml:"introspection"`
	// Kubernetes says how to reach the cluster, for `issuer: kubernetes`.
	Kubernetes Kubernetes `yaml:"kubernetes"`
	// TrustDomain is the SPIFFE trust domain the provider speaks for, such as
	// `prod.example`: a subject below spiffe://prod.example/ is a workload then.
	// Required for `issuer: x509`.
	TrustDomain string `yaml:"trust_domain"`
}

// interactive reports whether people can log in.
func (p *Provider) interactive() bool {
	return p.Issuer != kubernetesIssuer && p.Issuer != x509Issuer && (p.Interactive == nil || *p.Interactive)
}

// LogsIn reports whether people can log in with the provider.
func (p *Provider) LogsIn() bool { return p.interactive() }

// OfCluster reports whether the provider vouches for service accounts.
func (p *Provider) OfCluster() bool { return p.Issuer == kubernetesIssuer }

// OfCertificates reports whether the provider vouches for workloads that show a
// certificate, about which nothing but their id is known.
func (p *Provider) OfCertificates() bool { return p.Issuer == x509Issuer }

// registered reports whether we are a client of the provider.
func (p *Provider) registered() bool { return p.interactive() || p.Introspection.Cache != 0 }

// validateTokens reports every mistake in the keys of MachineTokens.
func (p *Provider) validateTokens(f access.Faults) {
	if i := slices.Index(p.Audiences, ""); i >= 0 {
		f.At("audiences[%d]", i).Add("remove it", "an empty audience")
	}
	if i := slices.Index(p.Audiences, p.ClientID); i >= 0 && p.InsecureAnyTokenType && p.ClientID != "" {
		f.At("audiences[%d]", i).Add("register an audience of its own for access tokens", "with insecure_any_token_type an ID token for the client %q could pass as an access token", p.ClientID)
	}
	if i := slices.Index(p.LoginClients, ""); i >= 0 {
		f.At("login_clients[%d]", i).Add("remove it", "an empty client id")
	}
	if p.Issuer == x509Issuer {
		p.validateAuthority(f)
		return
	}
	if len(p.Audiences) == 0 {
		switch {
		case !p.interactive():
			f.At("audiences").Add("list the audiences of its tokens, such as [doorward]", "the provider does nothing: nobody logs in with it, and none of its tokens are accepted")
		case p.Introspection.Cache != 0 || p.InsecureAnyTokenType || p.TrustDomain != "" || len(p.LoginClients) > 0:
			f.At("audiences").Add("list the audiences of its access tokens", "no access tokens are accepted without audiences")
		}
	}
	if cache := p.Introspection.Cache.Std(); cache < 0 || cache > maxIntrospectionCache {
		f.At("introspection").At("cache").Add("write 30s", "an answer can be relied on for at most %s", maxIntrospectionCache)
	}
	if p.TrustDomain != "" && !access.IsSPIFFE("spiffe://"+p.TrustDomain+"/x") {
		f.At("trust_domain").Add("write it in lower case, without spiffe://, such as prod.example", "%q is no trust domain", p.TrustDomain)
	}
	p.validateCluster(f)
}

// validateAuthority is for providers whose workloads show certificates.
func (p *Provider) validateAuthority(f access.Faults) {
	if p.CA == "" {
		f.At("ca").Add("name the PEM file with the authorities of the trust domain", "nobody vouches for the certificates")
	}
	if !access.IsSPIFFE("spiffe://" + p.TrustDomain + "/x") {
		f.At("trust_domain").Add("write it in lower case, without spiffe://, such as prod.example", "%q is no trust domain", p.TrustDomain)
	}
	if len(p.Audiences) > 0 || p.Introspection.Cache != 0 || p.InsecureAnyTokenType || len(p.LoginClients) > 0 || p.Kubernetes != (Kubernetes{}) || p.Interactive != nil && *p.Interactive {
		f.Add("keep id, issuer, ca and trust_domain", "with issuer: x509 there are certificates, and neither tokens nor logins")
	}
}

func (p *Provider) validateCluster(f access.Faults) {
	if p.Issuer != kubernetesIssuer {
		if p.Kubernetes != (Kubernetes{}) {
			f.At("kubernetes").Add("write issuer: kubernetes", "the key is for Kubernetes only")
		}
		return
	}
	if p.Interactive != nil && *p.Interactive {
		f.At("interactive").Add("remove it", "nobody can log in with service accounts")
	}
	if p.Introspection.Cache != 0 {
		f.At("introspection").Add("use kubernetes: {review: true}", "a cluster has no introspection")
	}
	if p.Kubernetes.API != "" {
		if _, err := parseIssuer(p.Kubernetes.API); err != nil {
			f.At("kubernetes").At("api").Add("write the https address of the API server", "%s", err)
		}
	}
}
