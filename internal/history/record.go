package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

// A Record is one decision of the log.
type Record struct {
	*access.Event
	// Gaps are the facts that the record lacks.
	Gaps authz.Gaps
	// Obscure is why nothing can be said about the request at all.
	Obscure string
	File    string
	Line    int
}

// place names the record's line.
func (r *Record) place() string { return audit.Place(r.File, r.Line) }

// Filter chooses records. The zero value takes all.
type Filter struct {
	// Since and Until bound the time of the request; Until is not part of it.
	Since, Until time.Time
	// Route is the route the request had, or has in the candidate.
	Route string
	// User is PROVIDER:SUB, or an e-mail address as it was claimed then.
	User string
}

// takes tells whether a record is in the time span and of the user.
func (f *Filter) takes(r *Record) bool {
	switch {
	case !f.Since.IsZero() && r.Time.Before(f.Since), !f.Until.IsZero() && !r.Time.Before(f.Until):
		return false
	case f.User == "" || r.Request == nil:
		return f.User == ""
	}
	id := &r.Request.Identity
	return id.User() == f.User || f.User == id.Email
}

// maxTroubles is how many unreadable lines are named; all are counted.
const maxTroubles = 20

// A Trouble is a line that could not be used.
type Trouble struct {
	Place string `json:"place"`
	Text  string `json:"text"`
}

// Contents says what a log holds.
type Contents struct {
	// Lines counts lines that are not blank. It is the sum of the next fields.
	Lines     int `json:"lines"`
	Decisions int `json:"decisions"`
	// Own are requests for Doorward's own addresses, on which no policy decided.
	Own int `json:"own_addresses,omitempty"`
	// Other counts events of other kinds.
	Other map[access.EventKind]int `json:"other_events,omitempty"`
	// Erased are records whose content was erased: what they said is unknown.
	Erased int `json:"erased,omitempty"`
	// Damaged are events that cannot be read, Torn those a crash cut off at the
	// end of a file, Foreign lines that are no events at all.
	Damaged int `json:"damaged,omitempty"`
	Torn    int `json:"torn,omitempty"`
	Foreign int `json:"foreign,omitempty"`
	// Cut counts files that could not be read to their end.
	Cut int `json:"files_cut_short,omitempty"`
	// Skipped are decisions that a filter left out.
	Skipped int `json:"skipped,omitempty"`
	// First and Last are the times of the first and the last decision used.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// Troubles names the first lines that could not be used.
	Troubles []Trouble `json:"troubles,omitempty"`
}

// Unusable counts what could not be read.
func (c *Contents) Unusable() int { return c.Damaged + c.Torn + c.Foreign + c.Cut }

func (c *Contents) trouble(file string, line int, format string, args ...any) {
	if len(c.Troubles) < maxTroubles {
		c.Troubles = append(c.Troubles, Trouble{audit.Place(file, line), fmt.Sprintf(format, args...)})
	}
}

func (c *Contents) saw(at time.Time) {
	if c.First.IsZero() || at.Before(c.First) {
		c.First = at
	}
	if at.After(c.Last) {
		c.Last = at
	}
}

func (c *Contents) add(more *Contents) {
	c.Lines += more.Lines
	c.Decisions += more.Decisions
	c.Own += more.Own
	c.Erased += more.Erased
	c.Damaged += more.Damaged
	c.Torn += more.Torn
	c.Foreign += more.Foreign
	c.Cut += more.Cut
	c.Skipped += more.Skipped
	for kind, n := range more.Other {
		c.other(kind, n)
	}
	if !more.First.IsZero() {
		c.saw(more.First)
		c.saw(more.Last)
	}
	c.Troubles = append(c.Troubles, more.Troubles[:min(len(more.Troubles), maxTroubles-len(c.Troubles))]...)
}

func (c *Contents) other(kind access.EventKind, n int) {
	if c.Other == nil {
		c.Other = map[access.EventKind]int{}
	}
	c.Other[kind] += n
}

// each calls use for every decision of a batch that the filter takes, and counts
// everything else.
func each(batch audit.Batch, filter *Filter, use func(*Record)) (c Contents) {
	for _, line := range batch.Lines {
		record, ok := c.read(batch.File, line)
		if !ok {
			continue
		}
		if !filter.takes(record) {
			c.Skipped++
			continue
		}
		c.saw(record.Time)
		use(record)
	}
	return c
}

// read counts a line and returns the decision it holds, if it holds one.
func (c *Contents) read(file string, line audit.Line) (*Record, bool) {
	if line.Err != nil && len(line.Text) == 0 && !errors.Is(line.Err, audit.ErrTooLong) {
		c.Cut++
		c.trouble(file, line.Number, "%v", line.Err)
		return nil, false
	}
	c.Lines++
	if line.Err != nil {
		c.Damaged++
		c.trouble(file, line.Number, "%v", line.Err)
		return nil, false
	}
	event, newer, err := decode(line.Text)
	switch {
	case err != nil && line.Torn:
		c.Torn++
		c.trouble(file, line.Number, "the last line was cut off: %v", err)
	case err != nil && audit.Begins(line.Text):
		c.Damaged++
		c.trouble(file, line.Number, "a damaged event: %v", err)
	case err != nil:
		c.Foreign++
		c.trouble(file, line.Number, "no audit event: %v", err)
	case event.Kind == access.EventErased:
		c.Erased++
	case event.Kind != access.EventDecision:
		c.other(event.Kind, 1)
	case event.Request != nil && event.Decision == nil:
		c.Own++
	default:
		c.Decisions++
		return newRecord(event, newer, file, line), true
	}
	return nil, false
}

// decode reads one event. A field that this version does not know is no error
// outside the request; inside, it is named in newer: a rule of that time may have
// looked at it.
func decode(line []byte) (event *access.Event, newer string, err error) {
	event = new(access.Event)
	err = strictly(line, event)
	if err != nil && strings.Contains(err.Error(), "unknown field") {
		var outline struct {
			Request json.RawMessage `json:"request"`
		}
		*event = access.Event{}
		if err = json.Unmarshal(line, event); err == nil && event.Request != nil {
			err = json.Unmarshal(line, &outline)
			if bad := strictly(outline.Request, new(access.Request)); bad != nil {
				newer = strings.TrimPrefix(bad.Error(), "json: ")
			}
		}
	}
	if err == nil && event.Kind == "" {
		err = errors.New("it has no kind")
	}
	return event, newer, err
}

func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return errors.New("the line ends in the middle")
		}
		return err
	}
	if int(d.InputOffset()) != len(text) {
		return errors.New("something follows the event")
	}
	return nil
}

func newRecord(event *access.Event, newer, file string, line audit.Line) *Record {
	r := &Record{Event: event, File: file, Line: line.Number}
	req := event.Request
	switch {
	case req == nil:
		r.Obscure = "the request was not recorded"
		return r
	case newer != "":
		r.Obscure = "recorded by a newer version: " + newer
		return r
	}
	if event.Decision.Rule == access.PreflightRule {
		req.Preflight = true // what records of the first version say only this way
	}
	if event.Incomplete {
		r.incomplete()
	}
	if req.Device.ID != "" {
		r.Gaps.Device = youngerFacts(line.Text)
	}
	return r
}

// hidden is what stands where a token was.
const hidden = "[redacted"

// incomplete finds out what of the request was taken out of the record.
func (r *Record) incomplete() {
	req := r.Request
	r.Gaps.Path = strings.Contains(req.Path, hidden)
	r.Gaps.Query = strings.Contains(req.Query, hidden)
	r.Gaps.Claims = strings.HasPrefix(r.Note, "recorded without claims")
	if rest, err := json.Marshal(req.Identity.Claims); err != nil || bytes.Contains(rest, []byte(hidden)) {
		r.Gaps.Claims = true
	}
	bare := *req
	bare.Path, bare.Query, bare.Identity.Claims = "", "", nil
	if rest, err := json.Marshal(&bare); err != nil || bytes.Contains(rest, []byte(hidden)) {
		r.Obscure = "what looked like a token was taken out of who asked"
	}
}

// deviceKey stands before the last object of this name, which is the request's:
// claims come earlier, and within text quotes are escaped.
var deviceKey = []byte(`"device":{`)

// writtenWith says by which key a record shows that its format knew the fact a
// check asks for: one that is written also where nothing is known. Facts that
// came together with another one are known by its key.
var writtenWith = map[string]string{
	"known": "known", "managed": "managed", "compliant": "compliant", "disk_encrypted": "disk_encrypted", "not_jailbroken": "jailbroken",
	"low_risk": "risk", "owned": "risk", "certificate": "risk", "claim": "risk",
}

// youngerFacts lists the checks whose fact the record's format did not have yet.
func youngerFacts(line []byte) (younger []string) {
	at := bytes.LastIndex(line, deviceKey)
	if at < 0 {
		return nil
	}
	for _, name := range authz.DeviceChecks() {
		if !bytes.Contains(line[at:], []byte(`"`+writtenWith[name]+`":"`)) {
			younger = append(younger, name)
		}
	}
	return younger
}
