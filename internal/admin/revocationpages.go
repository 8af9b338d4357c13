package admin

import (
	"net/http"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// revocationsView answers: whose access was ended, why, and until when?
type revocationsView struct {
	Rows []access.Revocation
	// User and Device fill in the form, for a link that leads here.
	User, Device string
}

// everybody has to be written into the form to revoke everything, so that no slip
// does it.
const everybody = "everybody"

func (a *api) revocationPages() []uiPage {
	if a.Revocations == nil {
		return nil
	}
	return []uiPage{
		{"GET /revocations", "Revocations", func(w http.ResponseWriter, r *http.Request) {
			list, err := a.Revocations.List()
			if err != nil {
				a.refuse(w, r, err)
				return
			}
			q := r.URL.Query()
			a.render(w, r, http.StatusOK, "revocations", "Revocations", revocationsView{list, q.Get("user"), q.Get("device")})
		}},
		{"POST /revocations", "", a.submit(aRevocation, "revoked", "/revocations", func(r *http.Request, deed Deed) (outcome, error) {
			ask, name := RevokeRequest{Deed: deed}, strings.TrimSpace(r.PostForm.Get("name"))
			switch r.PostForm.Get("what") {
			case "user":
				ask.User = name
			case "device":
				ask.Device = name
			case "all":
				if name != everybody {
					return outcome{}, &Fault{http.StatusBadRequest, "everything of everybody would be revoked", "if that is meant, write the word everybody as the name"}
				}
				ask.All = true
			}
			return a.revoke(r, ask)
		})},
		{"POST /revocations/lift", "", a.submit(liftingRevocation, "lifted", "/revocations", func(r *http.Request, _ Deed) (outcome, error) {
			return a.lift(r)
		})},
	}
}
