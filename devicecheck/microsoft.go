package devicecheck

// The public cloud of Microsoft; others have addresses of their own.
const (
	graphURL      = "https://graph.microsoft.com"
	defenderURL   = "https://api.securitycenter.microsoft.com"
	microsoftAuth = "https://login.microsoftonline.com"
)

// Where the answers of OData have their records and the link to the next page.
var (
	odataItems = jsonPath{"value"}
	odataNext  = jsonPath{"@odata.nextLink"}
)

// newMicrosoft opens an API of Microsoft for an application of a tenant.
func newMicrosoft(s Source, address string, o outside) (*remote, error) {
	r, err := newRemote(orText(s.URL, address), o)
	if err != nil {
		return nil, err
	}
	auth, err := parseHome(orText(s.AuthURL, microsoftAuth))
	if err != nil {
		return nil, err
	}
	r.useClientCredentials(auth.JoinPath(s.Tenant, "oauth2/v2.0/token"), s, r.home.JoinPath(".default").String())
	return r, nil
}

func orText(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
