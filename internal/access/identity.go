package access

import (
	"slices"
	"strings"
	"time"
)

// Identity says who asks. The zero value is Nobody.
//
// A person is the pair of Issuer and Subject; e-mail addresses are never a key,
// because two issuers may hand out the same one.
type Identity struct {
	// Kind tells people from machines. Rules that do not name machines match
	// people only.
	Kind Kind `json:"kind,omitempty"`
	// Provider is the id of the configured provider that vouches for the identity.
	Provider string `json:"provider,omitempty"`
	// Issuer is the provider's issuer URL, compared byte by byte.
	Issuer string `json:"iss,omitempty"`
	// Subject is the `sub` claim, unique within Issuer.
	Subject string `json:"sub,omitempty"`

	Email         string `json:"email,omitempty"`
	EmailVerified bool   `json:"email_verified,omitempty"`
	Name          string `json:"name,omitempty"`
	Username      string `json:"username,omitempty"` // preferred_username

	// Groups are the group names the provider claims and the configuration
	// trusts, sorted and without duplicates (see Normalize).
	Groups []string `json:"groups,omitempty"`
	// GroupsIncomplete tells that the provider withheld groups (Entra's group
	// overage, `_claim_names`). A group that is not listed is then unknown,
	// not absent.
	GroupsIncomplete bool `json:"groups_incomplete,omitempty"`

	// Claims holds the remaining ID token claims, for rules that name them.
	Claims map[string]any `json:"claims,omitempty"`

	// Login says how and when the person proved who they are.
	Login Login `json:"login,omitzero"`

	Workload
}

// Kind tells people from machines. The zero value is a person, who is nobody
// without provider, issuer and subject.
type Kind string

// The kinds of identities.
const (
	Person  Kind = ""
	Service Kind = "service"
)

// Workload is what an access token or a client certificate says beyond who the
// subject is. It is empty for people with a browser session.
type Workload struct {
	// ClientID is the OAuth client the access token was issued to.
	ClientID string `json:"client_id,omitempty"`
	// Scopes are those of the access token, sorted and without duplicates.
	Scopes []string `json:"scopes,omitempty"`
	// ServiceAccount is a Kubernetes service account, "namespace/name".
	ServiceAccount string `json:"service_account,omitempty"`
	// SPIFFE is a SPIFFE ID of a trust domain the provider may speak for,
	// "spiffe://prod.example/ns/billing".
	SPIFFE string `json:"spiffe,omitempty"`
}

// Login is one authentication event, as the ID token states it.
type Login struct {
	// Time is the `auth_time` claim. Zero means that the provider did not say.
	Time time.Time `json:"auth_time,omitzero"`
	// ACR is the authentication context class reference (OpenID Connect Core §2).
	ACR string `json:"acr,omitempty"`
	// AMR lists the authentication methods (RFC 8176), sorted.
	AMR []string `json:"amr,omitempty"`
	// Levels are the levels of assurance that the login reached, and the
	// authentication contexts it carries, sorted: what a route may name besides
	// ACR. Package authn reads them from a table for each provider.
	Levels []string `json:"levels,omitempty"`
}

// Nobody reports whether the identity is that of no one. An identity without
// provider, issuer or subject is no one.
func (id *Identity) Nobody() bool {
	return id.Provider == "" || id.Issuer == "" || id.Subject == ""
}

// User returns the name a policy uses for this person: "provider:sub".
// It is empty for Nobody.
func (id *Identity) User() string {
	if id.Nobody() {
		return ""
	}
	return id.Provider + ":" + id.Subject
}

// Normalize sorts the lists that decisions search. Whoever builds an Identity
// from outside data calls it once, before the identity is stored or decided on.
func (id *Identity) Normalize() {
	slices.Sort(id.Groups)
	id.Groups = slices.Compact(id.Groups)
	slices.Sort(id.Login.AMR)
	id.Login.AMR = slices.Compact(id.Login.AMR)
	slices.Sort(id.Scopes)
	id.Scopes = slices.Compact(id.Scopes)
}

// IsSPIFFE reports whether s is a SPIFFE ID in its one canonical form: a trust
// domain in lower case, without port, and a path without empty, `.` or `..`
// segments (SPIFFE-ID §2). A trust domain alone is one, too.
func IsSPIFFE(s string) bool {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok || len(s) > 2048 {
		return false
	}
	domain, path, hasPath := strings.Cut(rest, "/")
	if !made(domain, "abcdefghijklmnopqrstuvwxyz0123456789.-_") || len(domain) > 255 {
		return false
	}
	if !hasPath {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." || !made(segment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") {
			return false
		}
	}
	return true
}

// made reports whether s is not empty and consists of certain letters only.
func made(s, letters string) bool { return s != "" && strings.Trim(s, letters) == "" }
