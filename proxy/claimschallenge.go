package proxy

import (
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// claimsChallenge returns the parameters that ask a client of Entra for an
// authentication context, or "": the demand names one, and the client has said
// in its token (`xms_cc: [cp1]`) that it understands. The client sends the
// decoded claims with its next authorization request.
func claimsChallenge(ask access.LoginRequire, id *access.Identity) string {
	i := slices.IndexFunc(ask.ACR, access.IsAuthContext)
	if i < 0 || !understandsClaims(id.Claims["xms_cc"]) {
		return ""
	}
	text, err := json.Marshal(map[string]any{"access_token": map[string]any{
		"acrs": map[string]any{"essential": true, "value": ask.ACR[i]},
	}})
	if err != nil {
		return "" // cannot be: strings and a boolean
	}
	return `, error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString(text) + `", cc_type="authcontext"`
}

func understandsClaims(capabilities any) bool {
	switch v := capabilities.(type) {
	case string:
		return v == "cp1"
	case []any:
		return slices.Contains(v, any("cp1"))
	}
	return false
}
