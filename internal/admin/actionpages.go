package admin

import (
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// actionsView answers: what did operators do?
type actionsView struct{ Rows []*access.Event }

func (a *api) actionPages() []uiPage {
	if a.Activity == nil {
		return nil
	}
	return []uiPage{{"GET /actions", "Actions", func(w http.ResponseWriter, r *http.Request) {
		a.render(w, r, http.StatusOK, "actions", "Actions", actionsView{a.Activity.Actions(maxRows)})
	}}}
}
