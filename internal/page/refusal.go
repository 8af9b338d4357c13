package page

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Refuse writes the page for a refusal. With head it writes the header only.
func Refuse(w http.ResponseWriter, head bool, rf Refusal) {
	view := newRefusalView(rf)
	if slices.ContainsFunc(view.Links, func(l Link) bool { return l.Post }) {
		formHeaders(w.Header())
	} else {
		Headers(w.Header())
	}
	write(w, head, rf.status(), refusalPage, view)
}

// reason is the reason to show: one that is not on the list, or that does not
// refuse, has no business on a refusal and reads as our own fault.
func (rf *Refusal) reason() access.Reason {
	if rf.Reason.Known() && rf.Reason.Info().Status >= 400 {
		return rf.Reason
	}
	return access.InternalError
}

func (rf *Refusal) status() int {
	if rf.Status >= 400 && rf.Status < 600 {
		return rf.Status
	}
	return rf.reason().Info().Status
}

// message is the deny rule's own text, which counts only where a rule denied.
func (rf *Refusal) message() string {
	if rf.Decision == nil || rf.reason() != access.DeniedByRule {
		return ""
	}
	return plain(rf.Decision.Message, maxParagraph)
}

// needs lists what is missing, where the refusal is about that: a request that
// failed for another reason owes its visitor no device report.
func (rf *Refusal) needs() []access.Need {
	if rf.Decision == nil || rf.Decision.Outcome == access.Allow {
		return nil
	}
	return rf.Decision.Needs
}

type refusalView struct {
	layout
	Icon            string
	Text, Cure      string
	Hints           []string
	Message         string
	Notice          string
	Report          string
	Needs           []needView
	Links           []Link
	User, RequestID string
	Time            time.Time
}

type needView struct {
	Title, Text, Cure   string
	Began, Want, Got    string
	Since, Read, Source string
	Facts               bool
	Details             []string
	Fix                 string
}

func newRefusalView(rf Refusal) refusalView {
	reason := rf.reason()
	info := reason.Info()
	view := refusalView{
		layout: newLayout(info.Title, rf.App),
		Icon:   icon(reason),
		Text:   info.Text, Cure: info.Cure,
		Hints:     hints(reason, rf.Decision),
		Message:   rf.message(),
		Notice:    rf.Notice,
		User:      plain(rf.User, maxLine),
		RequestID: plain(rf.RequestID, maxLine),
		Time:      rf.Time.UTC(),
	}
	needs := rf.needs()
	common := sameReport(needs)
	if common {
		view.Report = report(needs[0].Source, since(needs[0].Since, rf.Time), since(needs[0].Read, rf.Time))
	}
	for _, need := range needs {
		if common {
			need.Source, need.Since, need.Read = "", time.Time{}, time.Time{}
		}
		if v := newNeedView(need, reason, rf.Time); len(needs) > 1 || need.Reason != reason {
			view.Needs = append(view.Needs, v)
		} else if v.Title = ""; v.Facts || len(v.Details) > 0 {
			view.Needs = append(view.Needs, v)
		} else if v.Fix != "" {
			view.Links = append(view.Links, Link{Text: "How to fix this", URL: v.Fix})
		}
	}
	for _, link := range rf.Links {
		if link.URL = webURL(link.URL); link.URL != "" {
			link.Text = plain(link.Text, maxLine)
			view.Links = append(view.Links, link)
		}
	}
	return view
}

// newNeedView leaves out text and cure of the need that is already the
// headline, so that nothing is said twice. (If it is the only one, its title
// goes too, and without anything left the whole item.)
func newNeedView(need access.Need, headline access.Reason, now time.Time) needView {
	info := need.Reason.Info()
	view := needView{
		Title: info.Title, Text: info.Text, Cure: info.Cure,
		Want: plain(need.Want, maxLine), Got: plain(need.Got, maxLine),
		Began: since(need.Began, now), Since: since(need.Since, now), Read: since(need.Read, now), Source: plain(need.Source, maxLine),
		Fix: webURL(need.Fix),
	}
	if need.Reason == headline {
		view.Text, view.Cure = "", ""
	}
	switch need.Reason {
	case access.DeviceUnknown, access.DeviceNotManaged, access.DeviceNotCompliant, access.DeviceNotEncrypted, access.DeviceJailbroken, access.DeviceAtRisk,
		access.DeviceOfAnotherUser, access.DeviceCertMissing, access.DeviceClaimMissing:
		view.Want, view.Got = "", "" // the title says it in words: "disk_encrypted, no" would not help
	case access.DeviceFactMissing:
		view.Want = strings.ReplaceAll(view.Want, "_", " ")
	}
	switch {
	case need.Reason == access.DeviceFactsTooOld && view.Want != "":
		view.Want, view.Got = "a report within "+view.Want, "" // when there was one is said below
	case view.Want != "" && view.Got == "":
		view.Got = "nothing"
	}
	for _, detail := range need.Details[:min(len(need.Details), maxDetails)] {
		if detail = plain(detail, maxLine); detail != "" {
			view.Details = append(view.Details, detail)
		}
	}
	view.Facts = view.Want != "" || view.Got != "" || view.Began != "" || view.Since != "" || view.Read != "" || view.Source != ""
	return view
}

// sameReport reports whether several needs go back to one report of one
// inventory, which then is named once, above them.
func sameReport(needs []access.Need) bool {
	if len(needs) < 2 || needs[0].Source == "" {
		return false
	}
	return !slices.ContainsFunc(needs, func(n access.Need) bool {
		return n.Reason.AboutDevice() && (n.Source != needs[0].Source || !n.Since.Equal(needs[0].Since) || !n.Read.Equal(needs[0].Read))
	})
}

func report(source, seen, read string) string {
	text := "According to " + plain(source, maxLine)
	if seen != "" {
		text += ", which last heard of the device " + seen
	}
	text += "."
	if read != "" {
		text += " The inventory was read " + read + "."
	}
	return text
}

// hints explain "no rule allows this" to somebody a rule is for. Whoever no
// rule is for learns nothing, not even which rules exist: the texts below name
// no rule, group or value, and appear only if nothing about the person missed.
func hints(reason access.Reason, d *access.Decision) []string {
	if reason != access.NotAllowed || d == nil || d.Nearest == nil {
		return nil
	}
	var out []string
	for _, miss := range d.Nearest.Missing {
		hint, ok := aboutTheRequest[miss.Condition]
		if !ok {
			return nil
		}
		if !slices.Contains(out, hint) {
			out = append(out, hint)
		}
	}
	return out
}

// aboutTheRequest holds the conditions of a rule that say nothing about who
// somebody is. A condition that is not listed is taken to be about the person.
var aboutTheRequest = map[string]string{
	"methods":  "You may use this application, but not for this kind of action.",
	"paths":    "You may use this application, but not this part of it.",
	"networks": "You may use this application, but not from the network you are in.",
	"time":     "You may use this application, but not at this time.",
}

// icon chooses the picture beside the headline.
func icon(reason access.Reason) string {
	switch {
	case reason.AboutDevice():
		return "device"
	case reason == access.NotAllowed, reason == access.DeniedByRule, reason == access.GroupsUnknown, reason == access.UpgradeRefused:
		return "policy"
	case reason.Info().Status >= 499:
		return "fault"
	case reason == access.BadRequest, reason == access.AmbiguousPath, reason == access.HeaderTooLarge, reason == access.NoRoute:
		return "lost"
	}
	return "login"
}

func count(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(n) + " " + unit + " ago"
}
