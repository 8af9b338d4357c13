package page

import (
	"net/http"
	"time"
)

// SendAgainData fills the page that asks whether to send a form again that a
// login came in between.
type SendAgainData struct {
	// App names the application, User who is logged in now.
	App, User string
	// Target is where the form is sent, as the visitor sent it before.
	Target string
	// Size is how much was sent, in bytes, Since when.
	Size  int
	Since time.Time
	// Hidden are the fields of the form that sends it.
	Hidden map[string]string
}

type sendAgainView struct {
	layout
	SendAgainData
	App string // both embedded structs have one
}

// SendAgain writes the page that asks whether to send a form again. What was
// sent is not shown: there may be a password in it.
func SendAgain(w http.ResponseWriter, d SendAgainData) {
	d.User, d.Target = plain(d.User, maxLine), webURL(d.Target)
	page := newLayout("Send it again?", d.App)
	formHeaders(w.Header())
	write(w, false, http.StatusOK, sendAgainPage, sendAgainView{page, d, page.App})
}
