package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// sessionsView answers: who is logged in?
type sessionsView struct {
	Search  string
	Rows    []access.SessionInfo
	Fitting int
	// More tells that there are sessions which were not even searched.
	More bool
}

// sessionView answers: what is that session, and what was done with it?
type sessionView struct {
	access.SessionInfo
	// Device is the one it was used from last, as far as recent decisions tell.
	Device access.Device
	Recent []decisionRow
}

func (a *api) sessionPages() []uiPage {
	if a.Sessions == nil {
		return nil
	}
	return []uiPage{
		{"GET /sessions", "Sessions", a.sessionsPage},
		{"GET /session", "", a.sessionPage},
		{"POST /session/revoke", "", a.submit(revokingSession, "session", "/sessions", a.revokeSession)},
	}
}

func (a *api) sessionsPage(w http.ResponseWriter, r *http.Request) {
	view := sessionsView{Search: strings.TrimSpace(r.URL.Query().Get("search"))}
	list, more, err := a.Sessions.List(r.Context(), "", maxList)
	if err == nil && more && strings.Contains(view.Search, ":") {
		// Of more people than one look covers, one is found by PROVIDER:SUB.
		if of, moreOf, errOf := a.Sessions.List(r.Context(), view.Search, maxList); errOf == nil && len(of) > 0 {
			list, more = of, moreOf
		}
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	view.More = more
	slices.SortFunc(list, func(a, b access.SessionInfo) int { return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.ID, b.ID)) })
	for i := range list {
		if s := &list[i]; view.Search == "" || containsFold(view.Search, append(s.Origins, s.User, s.Email, s.Name, s.ID)...) {
			if view.Fitting++; len(view.Rows) < maxRows {
				view.Rows = append(view.Rows, *s)
			}
		}
	}
	a.render(w, r, http.StatusOK, "sessions", "Sessions", view)
}

func (a *api) sessionPage(w http.ResponseWriter, r *http.Request) {
	info, err := a.Sessions.Show(r.Context(), r.URL.Query().Get("id"))
	if err == nil && info == nil {
		err = errNoSession
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	view := sessionView{SessionInfo: *info}
	if a.Decisions != nil {
		for _, e := range a.Decisions.Recent(maxKept) {
			if e.Request.Session.ID != info.ID {
				continue
			}
			if len(view.Recent) == 0 {
				view.Device = e.Request.Device
			}
			if view.Recent = append(view.Recent, newDecisionRow(e)); len(view.Recent) == 20 {
				break
			}
		}
	}
	a.render(w, r, http.StatusOK, "session", "One session", view)
}
