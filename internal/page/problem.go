package page

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

// problem is the document programs get (RFC 9457 §3). It holds less than the
// page: nothing about who is logged in, no rule, no inventory.
type problem struct {
	Type     string        `json:"type"`
	Title    string        `json:"title"`
	Status   int           `json:"status"`
	Detail   string        `json:"detail"`
	Instance string        `json:"instance,omitempty"`
	Reason   string        `json:"reason"`
	Cure     string        `json:"cure,omitempty"`
	Notice   string        `json:"notice,omitempty"`
	Needs    []problemNeed `json:"needs,omitempty"`
}

type problemNeed struct {
	Reason string `json:"reason"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Want   string `json:"want,omitempty"`
	Got    string `json:"got,omitempty"`
	Fix    string `json:"fix,omitempty"`
	// Since is since when it is missing, where that is known.
	Since time.Time `json:"since,omitzero"`
}

// Document is a refusal as a problem document, to be part of another one.
func Document(rf Refusal) any { return newProblem(&rf) }

// Problem writes a refusal as application/problem+json (RFC 9457). The caller
// adds WWW-Authenticate and, where the route has them, CORS headers.
func Problem(w http.ResponseWriter, rf Refusal) {
	doc := newProblem(&rf)
	body, err := json.Marshal(doc)
	if err != nil {
		body = nil // strings and numbers only: cannot happen
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	dropContentHeaders(h)
	send(w, false, doc.Status, append(body, '\n'))
}

func newProblem(rf *Refusal) problem {
	reason := rf.reason()
	info := reason.Info()
	doc := problem{
		Type:     "urn:doorward:reason:" + string(reason),
		Title:    info.Title,
		Status:   rf.status(),
		Detail:   info.Text,
		Instance: rf.instance(),
		Reason:   string(reason),
		Cure:     info.Cure,
		Notice:   rf.Notice,
	}
	if message := rf.message(); message != "" {
		doc.Detail = message
	}
	for _, need := range rf.needs() {
		info := need.Reason.Info()
		doc.Needs = append(doc.Needs, problemNeed{
			Reason: string(need.Reason), Title: info.Title, Detail: info.Text,
			Want: plain(need.Want, maxLine), Got: plain(need.Got, maxLine), Fix: webURL(need.Fix),
			Since: need.Began.UTC(),
		})
	}
	return doc
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// instance names this one refusal: the request id as a URN, so that a program's
// log leads to the audit event.
func (rf *Refusal) instance() string {
	switch {
	case rf.Instance != "":
		return rf.Instance
	case rf.RequestID == "":
		return ""
	case uuid.MatchString(rf.RequestID):
		return "urn:uuid:" + rf.RequestID
	}
	return "urn:doorward:request:" + url.PathEscape(rf.RequestID)
}
