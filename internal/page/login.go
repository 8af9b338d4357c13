package page

import (
	"net/http"
	"strings"
)

type chooserView struct {
	layout
	ChooserData
	App string // both embedded structs have one
}

// Chooser writes the page on which visitors choose where to log in: a button
// for each provider and, if asked for, a field for the e-mail address.
func Chooser(w http.ResponseWriter, d ChooserData) {
	status := http.StatusOK
	if d.Error != "" {
		status = http.StatusBadRequest
	}
	page := newLayout("Log in", d.App)
	view := chooserView{page, d, page.App}
	view.Choices = nil
	for _, choice := range d.Choices {
		if choice.URL = webURL(choice.URL); choice.URL != "" {
			choice.Name = plain(choice.Name, maxLine)
			view.Choices = append(view.Choices, choice)
		}
	}
	view.EmailAction = webURL(d.EmailAction)
	view.EmailMethod = "post"
	if strings.EqualFold(d.EmailMethod, http.MethodGet) {
		view.EmailMethod = "get"
	}
	view.Email, view.Error = plain(d.Email, maxLine), plain(d.Error, maxLine)
	formHeaders(w.Header())
	write(w, false, status, chooserPage, view)
}

type signedOutView struct {
	layout
	SignedOutData
}

// SignedOut writes the page after a logout.
func SignedOut(w http.ResponseWriter, d SignedOutData) {
	d.User, d.AgainURL = plain(d.User, maxLine), webURL(d.AgainURL)
	Headers(w.Header())
	write(w, false, http.StatusOK, signedOutPage, signedOutView{newLayout("You are logged out", ""), d})
}

type confirmView struct {
	layout
	ConfirmData
}

// ConfirmLogout writes the page that asks whether to log out, with a button
// that posts.
func ConfirmLogout(w http.ResponseWriter, d ConfirmData) {
	d.User, d.Action, d.CancelURL = plain(d.User, maxLine), webURL(d.Action), webURL(d.CancelURL)
	formHeaders(w.Header())
	write(w, false, http.StatusOK, confirmPage, confirmView{newLayout("Log out?", ""), d})
}
