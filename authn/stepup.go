package authn

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// satisfied reports whether a login is what was asked for. It is judged by the
// ID token's statements, with the policy's own ruler: a login that passed here
// and failed there would go round for ever.
func satisfied(login *access.Login, ask access.LoginRequire, now time.Time) bool {
	return login.Satisfies(&ask, now)
}

// stepUpParams are the parameters that ask a provider for a certain kind of
// login, in the provider's own words. Whoever sits at the browser can remove
// them; satisfied decides.
func stepUpParams(ask access.LoginRequire, claimsParameter bool, table *levelTable) url.Values {
	v := url.Values{}
	acr, contexts := table.request(ask.Classes())
	idToken := map[string]any{}
	if len(acr) > 0 && !claimsParameter {
		// Only where there is nothing better: acr_values is a wish, and beside
		// an essential claim some providers take the wish (oidc-provider does).
		v.Set("acr_values", strings.Join(acr, " "))
	} else if len(acr) > 0 {
		idToken["acr"] = map[string]any{"essential": true, "values": acr}
	}
	if len(contexts) > 0 {
		// Entra takes one, and understands it without announcing the parameter.
		idToken["acrs"] = map[string]any{"essential": true, "value": contexts[0]}
	}
	if ask.MaxAge > 0 {
		v.Set("max_age", strconv.Itoa(int(requestedAge(ask.MaxAge.Std()).Seconds())))
	}
	if wanted := len(ask.AMR) > 0 || len(ask.Classes()) > 0; wanted && len(acr) == 0 && len(contexts) == 0 {
		// There is no parameter for methods, nor for a level the provider has no
		// word for; a fresh login is the only chance that another one is used.
		v.Set("prompt", "login")
	}
	if claimsParameter && len(ask.AMR) > 0 {
		idToken["amr"] = map[string]any{"essential": true}
	}
	if claimsParameter && ask.MaxAge > 0 {
		idToken["auth_time"] = map[string]any{"essential": true}
	}
	if len(idToken) > 0 {
		text, _ := json.Marshal(map[string]any{"id_token": idToken}) // strings and booleans
		v.Set("claims", string(text))
	}
	return v
}

// requestedAge asks for a little less than is needed, so that a provider whose
// clock is behind does not call a login recent that is not.
func requestedAge(age time.Duration) time.Duration {
	return max(0, age-min(skew, age/2)).Truncate(time.Second)
}

const maxAskText = 512 // bytes of acr or amr in one of our own URLs

// addAsk and readAsk carry a demand between our own pages and hosts.
func addAsk(v url.Values, ask access.LoginRequire) {
	if len(ask.ACR) > 0 {
		v.Set("acr", strings.Join(ask.ACR, " "))
	}
	if len(ask.AMR) > 0 {
		v.Set("amr", strings.Join(ask.AMR, " "))
	}
	if ask.MaxAge > 0 {
		v.Set("max_age", ask.MaxAge.String())
	}
	if ask.PhishingResistant {
		v.Set("phishing_resistant", "1")
	}
}

func readAsk(v url.Values) (ask access.LoginRequire, ok bool) {
	for name, list := range map[string]*[]string{"acr": &ask.ACR, "amr": &ask.AMR} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		*list = strings.Split(text, " ")
		if len(text) > maxAskText || slices.ContainsFunc(*list, func(s string) bool { return !isScope(s) }) {
			return access.LoginRequire{}, false
		}
	}
	if age := v.Get("max_age"); age != "" && ask.MaxAge.UnmarshalText([]byte(age)) != nil {
		return access.LoginRequire{}, false
	}
	ask.PhishingResistant = v.Get("phishing_resistant") != ""
	return ask, true
}
