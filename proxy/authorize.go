package proxy

import (
	"bytes"
	"maps"
	"net/http"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// Question is a front end's question about a request that it forwards itself,
// put in another way than over HTTP.
type Question struct {
	// Request is what the visitor asks for, as the front end describes it: Method,
	// RequestURI, Host and Header, whose X-Forwarded-Proto and X-Forwarded-For are
	// the front end's own word, RemoteAddr, which is the front end's address, and
	// the context. It is changed.
	Request *http.Request
	// Door is the way the question came in.
	Door access.Door
	// Certificate is the one that the visitor showed to the front end, in PEM,
	// percent-encoded. It is verified like any other. Empty: none is told of.
	Certificate string
	// Route is the id of the route that the request has to match. It can only
	// narrow: the address decides. Empty: any.
	Route string
}

// Verdict is the answer to a Question. The zero value allows nothing.
type Verdict struct {
	// Request and Decision are what was decided, and on what. They belong to the
	// record and must not be changed.
	Request  *access.Request
	Decision *access.Decision
	// Allowed tells the front end to forward the request.
	Allowed bool
	// HandOn are the headers that the application gets, in place of whatever the
	// request has under these names.
	HandOn http.Header
	// Remove lists the headers that the application must not get, in canonical
	// form: what the visitor may not say, and what Doorward has nothing to say about.
	Remove []string
	// Status, Header and Body are the answer for the visitor, where the request is
	// not allowed. Where it is, Header has what to add to the application's answer.
	Status int
	Header http.Header
	Body   []byte
}

// Refused is the verdict on a question that means nothing or that nobody may
// ask: a plain 403.
func Refused(why error) *Verdict {
	return &Verdict{Decision: &access.Decision{Reason: access.BadRequest}, Request: &access.Request{}, Status: http.StatusForbidden,
		Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Cache-Control": {"no-store"}}, Body: []byte(why.Error() + "\n")}
}

// Authorize decides on a request as the standalone door does and keeps the same
// record. Whatever goes wrong is a refusal.
func (d *Door) Authorize(q *Question) (v *Verdict) {
	answer := &answerBook{header: http.Header{}}
	told := toldBy(q.Request.Header)
	p := d.begin(answer, q.Request)
	p.req.Door, p.answering, p.question = q.Door, asVerdict, q
	v = &Verdict{Request: p.req, Decision: p.dec}
	p.verdict, p.told = v, told
	defer func() {
		if gone := recover(); gone != nil && gone != http.ErrAbortHandler {
			panic(gone)
		} else if gone != nil {
			answer.status = http.StatusInternalServerError
		}
		v.Status, v.Header, v.Body = answer.status, answer.header, answer.body.Bytes()
		v.Allowed = v.HandOn != nil && answer.status == http.StatusOK && p.dec.Outcome == access.Allow
	}()
	defer p.finish()
	p.answer()
	return v
}

// toldBy keeps the headers of a question before the stations change them.
func toldBy(h http.Header) http.Header {
	told := h.Clone()
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"} {
		told[name] = nil // the front end's word; the visitor's may be beside it
	}
	return told
}

// MayAsk reports whether somebody may put questions at a side door of the
// configuration in force.
func (d *Door) MayAsk(side func(*Config) *SideDoor, who Asker) error {
	if gen := d.live.Load(); gen != nil && side(&gen.Server).admits(who) {
		return nil
	}
	d.log.Warn("somebody asked who may not", "peer", who.Addr, "cure", "if it is a front end of yours, list it among the peers of the listener")
	return errNotAsked
}

// handedOver returns what a front end that can change any header has to do to
// the request so that the application gets what it would get from Doorward: the
// headers to set, and those to remove, whether or not the front end has told of
// them.
func (p *passage) handedOver() (set http.Header, remove []string) {
	final := p.in.Header.Clone()
	for _, name := range []string{"Cookie", "Authorization"} {
		joinHeader(final, name)
	}
	p.outHeader(final)
	set = http.Header{}
	for name, values := range final {
		if !slices.Equal(values, p.told[name]) {
			set[name] = values
		}
	}
	gone := map[string]bool{}
	for name := range p.told {
		gone[name] = final[name] == nil
	}
	for name, values := range p.handedOn() {
		if values[0] == "" {
			gone[name] = true
		} else {
			set[name] = values
			gone[name] = false
		}
	}
	maps.DeleteFunc(gone, func(_ string, is bool) bool { return !is })
	return set, slices.Sorted(maps.Keys(gone))
}

// answerBook is a response writer that keeps the answer. All that is written to
// it are Doorward's own pages and problem documents.
type answerBook struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answerBook) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answerBook) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answerBook) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}
