package tunnel

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/doorward/doorward/internal/access"
)

// Refusal is why the door said no.
type Refusal struct {
	// What was asked for.
	What   string
	Status int
	// Reason is a word from the list of package access.
	Reason access.Reason
	problem
}

// problem is what is read of a problem document (RFC 9457).
type problem struct {
	Title    string `json:"title"`
	Detail   string `json:"detail"`
	Cure     string `json:"cure"`
	Word     string `json:"reason"`
	Instance string `json:"instance"`
	Needs    []struct {
		Word  string `json:"reason"`
		Title string `json:"title"`
		Want  string `json:"want"`
		Got   string `json:"got"`
		Fix   string `json:"fix"`
	} `json:"needs"`
}

// refused reads the answer of a door that did not switch.
func (d *Door) refused(resp *http.Response, what string) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	r := &Refusal{What: what, Status: resp.StatusCode}
	if err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		err = json.Unmarshal(body, &r.problem)
	}
	if r.Reason = access.Reason(r.Word); err != nil || !r.Reason.Known() || r.Status == http.StatusUpgradeRequired || r.Status == http.StatusNotImplemented {
		return &Unreachable{d.base.String(), fmt.Errorf("%w (status %d)", errNotPassed, resp.StatusCode)}
	}
	return r
}

// Error says in a sentence why, and in another one what helps.
func (r *Refusal) Error() string {
	info := r.Reason.Info()
	text := fmt.Sprintf("%s: %s", r.What, info.Title)
	if r.Detail != "" && r.Detail != info.Text {
		text += ": " + strings.TrimSuffix(plainText(r.Detail), ".") // the rule's own message
	}
	cure := info.Cure
	for _, need := range r.Needs {
		word := access.Reason(need.Word)
		if !word.Known() {
			continue
		}
		if word != r.Reason {
			text += "; " + word.Info().Title
		}
		if need.Want != "" {
			text += fmt.Sprintf(" (needed: %s, found: %s)", plainText(need.Want), plainText(orNothing(need.Got)))
		}
		if need.Fix != "" {
			cure = "Fix it at " + plainText(need.Fix)
		}
	}
	if text += "."; cure != "" {
		text += " " + cure
	}
	return text + fmt.Sprintf(" (%s)", r.Reason)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// plainText keeps what a terminal may be shown.
func plainText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 500)]
}

// ReasonOf returns why there is no tunnel any more, or never was one, as far as
// the door said so; empty otherwise.
func ReasonOf(err error) access.Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	if e, ok := errors.AsType[*Ended](err); ok {
		if why := access.Reason(e.Word); why.Known() {
			return why
		}
	}
	return ""
}

// Explain says what an error of a tunnel means to the person who uses it.
func Explain(target string, err error) string {
	if e, ok := errors.AsType[*Ended](err); ok {
		if why := access.Reason(e.Word); why.Known() {
			return strings.TrimSpace(fmt.Sprintf("%s: the door ended the tunnel: %s. %s (%s)", target, why.Info().Title, why.Info().Cure, why))
		}
		return target + ": the door ended the tunnel"
	}
	if errors.Is(err, errTruncated) {
		return target + ": the connection to the door was lost"
	}
	return err.Error()
}

// untrusted reports whether the door could not prove who it is, or would not
// speak with us: nothing that waiting cures.
func untrusted(err error) bool {
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return cert || alert || record
}
