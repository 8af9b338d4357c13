package authn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Kubernetes says how to reach the cluster whose service accounts are accepted.
type Kubernetes struct {
	// API is the address of the API server. Default:
	// `https://kubernetes.default.svc`, the cluster Doorward itself runs in. Its
	// authority is `ca`, by default that of the pod's service account.
	API string `yaml:"api"`
	// TokenFile holds the token that Doorward shows to the API server. It is read
	// again for every request, because the kubelet replaces it. Default: that of
	// the pod's service account.
	TokenFile string `yaml:"token_file"`
	// Review also asks the API server about every token (TokenReview), so that
	// tokens of deleted pods stop working within 30s. Doorward's service account
	// then needs the role `system:auth-delegator`.
	Review bool `yaml:"review"`
}

// kubernetesIssuer is the word that stands for the issuer of a cluster.
const kubernetesIssuer = "kubernetes"

const (
	clusterAPI   = "https://kubernetes.default.svc"
	clusterFiles = "/var/run/secrets/kubernetes.io/serviceaccount/"
	reviewedFor  = 30 * time.Second
)

// cluster is what the client of a Kubernetes provider has instead of logins.
type cluster struct {
	api string // without a final slash
}

// newCluster returns a client whose metadata and keys come from an API server.
// Whatever issuer that server names is its own: it is reached by an address and
// an authority that the operator chose.
func newCluster(p Provider, opts *Options) (*client, error) {
	k := cluster{api: strings.TrimSuffix(p.Kubernetes.API, "/")}
	if k.api == "" {
		k.api = clusterAPI
	}
	address, err := parseIssuer(k.api)
	if err != nil {
		return nil, fmt.Errorf("provider %s: kubernetes.api: %w", p.ID, err)
	}
	if p.CA == "" && p.Kubernetes.API == "" && opts.Transport == nil {
		p.CA = clusterFiles + "ca.crt"
	}
	hc, err := newHTTPClient(opts, &p)
	if err != nil {
		return nil, err
	}
	file := p.Kubernetes.TokenFile
	if file == "" {
		file = clusterFiles + "token"
	}
	hc.Transport = &fileBearer{next: hc.Transport, file: file}
	c := &client{cfg: p, issuer: address, http: hc, now: opts.Now, log: opts.Log, cluster: &k}
	c.metadata.Now, c.keys.Now = opts.Now, opts.Now
	c.metadata.Fetch = func(ctx context.Context) (*metadata, error) {
		doc, err := jose.GetJSON(ctx, hc, k.api+"/.well-known/openid-configuration", "")
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		meta := &metadata{jwks: k.api + "/openid/v1/jwks", algorithms: c.cfg.algorithms()}
		if meta.issuer, err = doc.Text("issuer"); err != nil || meta.issuer == "" {
			return nil, errors.New("metadata: the cluster does not name its issuer")
		}
		return meta, nil
	}
	c.keys.Fetch = c.fetchKeys
	return c, nil
}

// fetchKeys reads the key set that the metadata name.
func (c *client) fetchKeys(ctx context.Context) ([]jose.Key, error) {
	meta, ok := c.metadata.Last()
	if !ok {
		return nil, c.metadata.Problem()
	}
	doc, err := jose.GetJSON(ctx, c.http, meta.jwks, "")
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return jose.ParseKeys(doc)
}

// fileBearer sends the token in a file with every request.
type fileBearer struct {
	next http.RoundTripper
	file string
}

// RoundTrip implements http.RoundTripper.
func (b *fileBearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, fmt.Errorf("our own token: %w", err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return b.next.RoundTrip(r)
}

const serviceAccountPrefix = "system:serviceaccount:"

// serviceAccount returns "namespace/name" for the user name of a service account.
func serviceAccount(user string) (string, error) {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(user, serviceAccountPrefix), ":")
	if !ok || !strings.HasPrefix(user, serviceAccountPrefix) || namespace == "" || name == "" || strings.ContainsAny(user, "/ ") || strings.Contains(name, ":") {
		return "", fmt.Errorf("%.100q is no service account", user)
	}
	return namespace + "/" + name, nil
}

// review asks the API server whether a token still counts, for us and for the
// service account it names (TokenReview of authentication.k8s.io/v1).
func (c *client) review(ctx context.Context, raw, account string) error {
	ctx, cancel := context.WithTimeout(ctx, jose.FetchTimeout)
	defer cancel()
	question, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": raw, "audiences": c.cfg.Audiences},
	})
	if err != nil {
		return access.Because(access.InternalError, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cluster.api+"/apis/authentication.k8s.io/v1/tokenreviews", bytes.NewReader(question))
	if err != nil {
		return access.Because(access.InternalError, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, answer, err := jose.AskJSON(c.http, req)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("the API server answered %d", resp.StatusCode)
	}
	if err != nil {
		return access.Becausef(access.ProviderUnavailable, "token review: %w", err)
	}
	return c.reviewed(answer, account)
}

func (c *client) reviewed(answer jose.Object, account string) error {
	fields, _ := answer["status"].(map[string]any)
	status := jose.Object(fields)
	if authenticated, err := status.Flag("authenticated"); err != nil || !authenticated {
		return access.Becausef(access.TokenRevoked, "token review: the cluster does not accept the token")
	}
	// An API server that knows no audiences answers without, and has checked none.
	aud, err := status.Texts("audiences")
	if err != nil || !c.hears(aud) {
		return access.Becausef(access.TokenAudience, "token review: the token is for %.200q", aud)
	}
	fields, _ = status["user"].(map[string]any)
	user, err := jose.Object(fields).Text("username")
	if err != nil {
		return access.Becausef(access.TokenInvalid, "token review: %w", err)
	}
	if named, err := serviceAccount(user); err != nil || named != account {
		return access.Becausef(access.TokenInvalid, "token review: the token is that of %.100q", user)
	}
	return nil
}

// discoverTokens reads what is needed of a provider nobody logs in with: who it
// is, its keys, and where to ask about tokens.
func discoverTokens(ctx context.Context, hc *http.Client, issuer *url.URL, spelled string) (*metadata, error) {
	doc, err := jose.GetJSON(ctx, hc, strings.TrimSuffix(spelled, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if named, err := doc.Text("issuer"); err != nil || named != spelled {
		return nil, fmt.Errorf("metadata of %s: they are those of another issuer, %.200q", spelled, named)
	}
	meta := &metadata{algorithms: jose.Algorithms()}
	for name, to := range map[string]*string{"jwks_uri": &meta.jwks, "introspection_endpoint": &meta.introspection} {
		if *to, err = doc.Text(name); err == nil && (*to != "" || name == "jwks_uri") {
			err = checkEndpoint(*to, issuer)
		}
		if err != nil {
			return nil, fmt.Errorf("metadata of %s: %s: %w", spelled, name, err)
		}
	}
	return meta, meta.parseClientFeatures(doc, issuer)
}
