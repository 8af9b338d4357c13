package admin

import (
	"net/http"
	"strings"
)

// routesView answers: what is published, to whom, and is it there?
type routesView struct {
	Search       string
	Routes       []RouteInfo
	Fitting      int
	Certificates []Certificate
}

func (a *api) routePages() []uiPage {
	if a.Instance == nil {
		return nil
	}
	return []uiPage{{"GET /routes", "Routes", func(w http.ResponseWriter, r *http.Request) {
		view := routesView{Search: strings.TrimSpace(r.URL.Query().Get("search")), Certificates: a.Instance.State().Certificates}
		for _, route := range a.Instance.Routes() {
			if view.Search != "" && !containsFold(view.Search, route.ID, route.From, route.Label) {
				continue
			}
			if view.Fitting++; len(view.Routes) < maxRows {
				view.Routes = append(view.Routes, route)
			}
		}
		a.render(w, r, http.StatusOK, "routes", "Routes", view)
	}}}
}
