package admin

import (
	"net/http"
)

// routesView answers: what is published, to whom, and is it there?
type routesView struct {
	Routes       []RouteInfo
	Certificates []Certificate
}

func (a *api) routePages() []uiPage {
	if a.Instance == nil {
		return nil
	}
	return []uiPage{{"GET /routes", "Routes", func(w http.ResponseWriter, r *http.Request) {
		a.render(w, r, http.StatusOK, "routes", "Routes", routesView{a.Instance.Routes(), a.Instance.State().Certificates})
	}}}
}
