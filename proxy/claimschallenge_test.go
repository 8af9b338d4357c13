package proxy

import (
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestClaimsChallenge(t *testing.T) {
	const challenge = `, error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzEifX19", cc_type="authcontext"`
	for name, c := range map[string]struct {
		acr  []string
		cc   any
		want string
	}{
		"understood":     {[]string{"phr", "c1"}, []any{"cp0", "cp1"}, challenge},
		"as text":        {[]string{"c1"}, "cp1", challenge},
		"not understood": {[]string{"c1"}, []any{"cp2"}, ""},
		"never said":     {[]string{"c1"}, nil, ""},
		"no context":     {[]string{"phr", "c0", "c100", "cp1", "c"}, []any{"cp1"}, ""},
	} {
		id := &access.Identity{Claims: map[string]any{"xms_cc": c.cc}}
		if got := claimsChallenge(access.LoginRequire{ACR: c.acr}, id); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
