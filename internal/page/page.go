package page

import (
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Refusal is everything a visitor may learn about a request that was not let
// through.
type Refusal struct {
	// Reason gives headline, text and cure. A reason outside the closed list
	// reads as access.InternalError.
	Reason access.Reason
	// Status is the HTTP status of the answer; 0 means the reason's own.
	Status int
	// RequestID is the incident number a visitor can quote.
	RequestID string
	// Time is when the request came in. Ages such as "30 days ago" count from
	// it; zero leaves them out.
	Time time.Time
	// Decision adds what is missing and the deny rule's message. May be nil.
	Decision *access.Decision
	// App names the application as visitors know it: its host or route id.
	App string
	// User is who the visitor is logged in as, usually the e-mail address.
	// Empty: not logged in.
	User string
	// Notice is a sentence of Doorward's own about what was just done.
	Notice string
	// Links are the ways out, in order.
	Links []Link
	// Instance is the URI of this occurrence in a problem document. Default: a
	// URN made of RequestID.
	Instance string
}

// Link is a way out of a page.
type Link struct {
	// Text is the label of the link or button.
	Text string
	// URL is an http, https or relative address; any other is left out.
	URL string
	// Primary marks the way most visitors should take.
	Primary bool
	// Post makes it a form that posts to URL instead of a link, for what
	// changes state, such as logging out.
	Post bool
}

// Choice is one identity provider on the chooser.
type Choice struct {
	// Name is what the visitor reads, URL where the login starts.
	Name, URL string
}

// ChooserData fills the page on which visitors choose where to log in.
type ChooserData struct {
	// App names the application the visitor is on the way to. May be empty.
	App string
	// Choices are offered as buttons, in order.
	Choices []Choice
	// EmailAction is the target of the form that asks for an e-mail address in
	// the field "email". Empty: no form.
	EmailAction string
	// EmailMethod is "post" (the default, which keeps the address out of logs
	// and histories) or "get".
	EmailMethod string
	// Hidden are further fields of the form.
	Hidden map[string]string
	// Email is what the visitor typed before.
	Email string
	// Error tells what was wrong with it. It is shown next to the field, and
	// the page is answered 400.
	Error string
}

// SignedOutData fills the page after a logout.
type SignedOutData struct {
	// User is who was logged in. May be empty.
	User string
	// ProviderMayRemain tells that the session at the identity provider could
	// not be ended, so that the next login may not ask for a password.
	ProviderMayRemain bool
	// AgainURL starts a new login. Empty: no link.
	AgainURL string
}

// ConfirmData fills the page that asks whether to log out, which keeps other
// sites from logging visitors out by a link.
type ConfirmData struct {
	// User is who is logged in.
	User string
	// Action is where the form posts to.
	Action string
	// Hidden are further fields of the form.
	Hidden map[string]string
	// Everywhere adds a button that posts everywhere=1: to end the sessions of
	// other browsers and devices, too.
	Everywhere bool
	// CancelURL leads back. Empty: no link.
	CancelURL string
}
