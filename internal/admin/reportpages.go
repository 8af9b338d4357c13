package admin

import (
	"net/http"
	"time"
)

// reportsView answers: what would change, if it were enforced?
type reportsView struct {
	Since time.Time
	State State
	// Rules only report; Candidate is of another configuration.
	Rules, Candidate []ShadowCount
	// More counts what there was no place for.
	More int
}

func (a *api) reportPages() []uiPage {
	if a.Tally == nil {
		return nil
	}
	return []uiPage{{"GET /reports", "Report-only", func(w http.ResponseWriter, r *http.Request) {
		var view reportsView
		list, more, since := a.Tally.shadows()
		view.More, view.Since = more, since
		if a.Instance != nil {
			view.State = a.Instance.State()
		}
		for _, c := range list {
			if c.Rule == "" {
				view.Candidate = append(view.Candidate, c)
			} else {
				view.Rules = append(view.Rules, c)
			}
		}
		a.render(w, r, http.StatusOK, "reports", "Report-only", view)
	}}}
}
