package testidp

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// inventoryTokens are the bearer tokens of an inventory.
type inventoryTokens struct {
	given int
	valid map[string]time.Time // until when
}

const (
	inventoryTokenLife = time.Hour
	serviceAccountName = "inventory@doorward.example"
	metadataPath       = "/computeMetadata/v1/token"
	grantJWTBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// serviceAccountKey is made once, because that takes a while.
var serviceAccountKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // there is no randomness
	}
	return key
})

// ServiceAccount returns the file that Google would have made for the key of a
// service account that gets its tokens at an inventory of kind "google".
func ServiceAccount(inventoryURL string) string {
	der, err := x509.MarshalPKCS8PrivateKey(serviceAccountKey())
	if err != nil {
		panic(err) // it is an RSA key
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "demo", "private_key_id": "1", "client_email": serviceAccountName,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":   inventoryURL + vendors["google"].token,
	})
	if err != nil {
		panic(err) // these are texts
	}
	return string(file)
}

// MetadataURL returns where an inventory of kind "google" gives tokens to
// whoever asks from the machine, as a metadata server does.
func MetadataURL(inventoryURL string) string { return inventoryURL + metadataPath }

func (i *Inventory) serveToken(w http.ResponseWriter, r *http.Request) {
	if err := i.checkClient(r); err != nil {
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		return
	}
	i.mu.Lock()
	i.tokens.given++
	token := fmt.Sprintf("token-%d", i.tokens.given)
	if i.tokens.valid == nil {
		i.tokens.valid = map[string]time.Time{}
	}
	i.tokens.valid[token] = i.now().Add(inventoryTokenLife)
	i.mu.Unlock()
	status := http.StatusOK
	if i.vendor.created {
		status = http.StatusCreated
	}
	writeJSON(w, status, map[string]any{"access_token": token, "token_type": "bearer", "expires_in": int(inventoryTokenLife / time.Second)})
}

// checkClient asks for what the vendor's documentation asks for.
func (i *Inventory) checkClient(r *http.Request) error {
	form := func(name, want string) error {
		if got := r.PostFormValue(name); got != want {
			return fmt.Errorf("%s is %q", name, got)
		}
		return nil
	}
	if r.URL.Path == metadataPath {
		if r.Method != http.MethodGet || r.Header.Get("Metadata-Flavor") != "Google" {
			return fmt.Errorf("no Metadata-Flavor")
		}
		return nil
	}
	if r.Method != http.MethodPost {
		return fmt.Errorf("%s is no POST", r.Method)
	}
	if i.vendor.assertion {
		return i.checkAssertion(r)
	}
	wants := map[string]string{"grant_type": "client_credentials", "client_id": InventoryClient, "client_secret": InventorySecret}
	if i.vendor.scope {
		wants["scope"] = base(r) + "/.default"
	}
	for name, want := range wants {
		if err := form(name, want); err != nil {
			return err
		}
	}
	return nil
}

func (i *Inventory) checkAssertion(r *http.Request) error {
	if grant := r.PostFormValue("grant_type"); grant != grantJWTBearer {
		return fmt.Errorf("grant_type is %q", grant)
	}
	var claims struct {
		jwt.RegisteredClaims
		Scope string `json:"scope"`
	}
	_, err := jwt.ParseWithClaims(r.PostFormValue("assertion"), &claims, func(*jwt.Token) (any, error) { return serviceAccountKey().Public(), nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(serviceAccountName), jwt.WithAudience(base(r)+r.URL.Path),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(i.now))
	if err == nil && !strings.HasSuffix(claims.Scope, "/auth/cloud-identity.devices.readonly") {
		err = fmt.Errorf("scope is %q", claims.Scope)
	}
	return err
}

// authorized reports whether a request carries what it needs. The caller holds
// i.mu.
func (i *Inventory) authorized(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if i.vendor.token == "" {
		return ok && token == InventoryAPIToken
	}
	until, known := i.tokens.valid[token]
	return ok && known && i.now().Before(until)
}
