package admin

import (
	"net/http"
	"slices"
	"strings"
)

// configView answers: what is in force, and who says so?
type configView struct {
	State    State
	Sections []section
	// More is how many there are besides.
	More int
}

// section is a part of the configuration: a key of the first level, or one entry
// of it.
type section struct {
	Name string
	Set  []Setting
	// Left are those that nobody set.
	Left []Setting
}

func (a *api) configPages() []uiPage {
	if a.Instance == nil {
		return nil
	}
	return []uiPage{{"GET /config", "Configuration", func(w http.ResponseWriter, r *http.Request) {
		view := configView{State: a.Instance.State(), Sections: sections(a.Instance.Settings())}
		if n := len(view.Sections); n > maxRows {
			view.Sections, view.More = view.Sections[:maxRows], n-maxRows
		}
		a.render(w, r, http.StatusOK, "config", "Configuration", view)
	}}}
}

// sections groups settings by what they are about, in their order.
func sections(list []Setting) (parts []section) {
	for _, s := range list {
		name := s.Key
		if i := strings.Index(name, "."); i >= 0 {
			name = name[:i]
		}
		if len(parts) == 0 || parts[len(parts)-1].Name != name {
			parts = append(parts, section{Name: name})
		}
		part := &parts[len(parts)-1]
		if s.Line > 0 {
			part.Set = append(part.Set, s)
		} else {
			part.Left = append(part.Left, s)
		}
	}
	// Of many routes not all are shown, so everything else comes before them.
	slices.SortStableFunc(parts, func(a, b section) int { return isRoute(a) - isRoute(b) })
	return parts
}

func isRoute(s section) int {
	if strings.HasPrefix(s.Name, "routes[") {
		return 1
	}
	return 0
}
