package serve

import (
	"slices"
	"testing"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/signals"
)

// Whom signals are about is named as sessions and revocations name them: what
// issues certificates to workloads has no issuer of its own in the configuration.
func TestSignalsNameIssuersAsIdentitiesDo(t *testing.T) {
	mesh := authn.Provider{ID: "mesh", Issuer: "x509"}
	mesh.TrustDomain = "corp.example"
	providers := []authn.Provider{{ID: "corp", Issuer: "https://login.example"}, mesh}
	want := []signals.Provider{{ID: "corp", Issuer: "https://login.example"}, {ID: "mesh", Issuer: "spiffe://corp.example"}}
	if got := speakers(providers); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
