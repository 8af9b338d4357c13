package audit

import (
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// maxFaults is how many faults are named; the rest is counted.
const maxFaults = 100

// Verified is what verifying audit files found.
type Verified struct {
	Files   int `json:"files"`
	Records int `json:"records"`
	// Signed are the records whose signature was verified. Each vouches for
	// everything before it.
	Signed int `json:"signed"`
	// Erased are the records that were erased by the owner of the key.
	Erased int `json:"erased,omitempty"`
	// Unsigned are the records at the end that no signature vouches for.
	Unsigned int `json:"unsigned"`
	// Head is the last record, "SEQ:HASH". Kept elsewhere it proves later that
	// nothing was cut off at the end.
	Head string `json:"head,omitempty"`
	// Faults are signs of tampering; FaultCount counts those not named, too.
	Faults     []Finding `json:"faults"`
	FaultCount int       `json:"fault_count"`
	// Notes are oddities with an innocent cause, such as a line that a crash cut.
	Notes []Finding `json:"notes,omitempty"`
}

// Finding is something about a line.
type Finding struct {
	Place string `json:"place"`
	Text  string `json:"text"`
}

// VerifyOptions say what the files have to hold up to.
type VerifyOptions struct {
	// Key is the public key of the signatures. Nil: they are not verified, and
	// whoever can write the files can also make a chain that fits.
	Key ed25519.PublicKey
	// Head is a record that must be in the files, "SEQ:HASH"; empty: none.
	Head string
}

// Verify follows the chain through audit files, in whichever order they are
// named. An error means that the question could not be asked.
func Verify(files *Files, opts VerifyOptions) (*Verified, error) {
	v := &verifier{opts: opts, result: &Verified{Files: len(files.Names), Faults: []Finding{}}}
	if seq, _, ok := strings.Cut(opts.Head, ":"); opts.Head != "" {
		if _, err := strconv.ParseUint(seq, 10, 64); err != nil || !ok {
			return nil, fmt.Errorf("%q is no head: write SEQ:HASH, as verify-log prints it", opts.Head)
		}
	}
	for batch := range files.Batches() {
		for i := range batch.Lines {
			v.line(batch.File, &batch.Lines[i])
		}
	}
	switch {
	case v.result.Records > 0:
		v.stitch()
	case v.result.FaultCount == 0:
		return nil, ErrNothingToVerify
	}
	if opts.Head != "" && !v.headSeen {
		v.fault("", 0, "no file holds the record %s: something was cut off at the end, or a file is missing", opts.Head)
	}
	return v.result, nil
}

// verifier goes through the lines of one file after the other.
type verifier struct {
	opts     VerifyOptions
	result   *Verified
	runs     []*run
	headSeen bool
}

// run is a stretch of records of one file that are numbered without a break in
// the file.
type run struct {
	file        string
	first, line int // line numbers of the first and the last record
	link        access.Link
	begins      bool // begins a file, so that what comes before is elsewhere
	at          time.Time
	roughly     bool // at is the hour: every record so far was erased
	last        record
	unsigned    []int // sizes of the records after the last signature
	signed      bool
}

func (v *verifier) fault(file string, line int, format string, args ...any) {
	v.result.FaultCount++
	if len(v.result.Faults) < maxFaults {
		v.result.Faults = append(v.result.Faults, finding(file, line, format, args...))
	}
}

func (v *verifier) note(file string, line int, format string, args ...any) {
	if len(v.result.Notes) < maxFaults {
		v.result.Notes = append(v.result.Notes, finding(file, line, format, args...))
	}
}

func finding(file string, line int, format string, args ...any) Finding {
	place := "all files"
	if file != "" {
		place = Place(file, line)
	}
	return Finding{place, fmt.Sprintf(format, args...)}
}

// current is the run that the file's last record belongs to.
func (v *verifier) current(file string) *run {
	if len(v.runs) == 0 || v.runs[len(v.runs)-1].file != file {
		return nil
	}
	return v.runs[len(v.runs)-1]
}

func (v *verifier) line(file string, line *Line) {
	if line.Err != nil {
		v.fault(file, line.Number, "%v", line.Err)
		return
	}
	now := v.current(file)
	link, whole := linkOf(line.Text)
	switch {
	case !whole:
		// No reader takes it for an event. If it was one, the next record tells.
		v.note(file, line.Number, "no record, as a crash leaves it")
	case link == nil && now == nil:
		v.note(file, line.Number, "a record from before there was a chain")
	case link == nil:
		v.fault(file, line.Number, "this record is not part of the chain: it was added, or its link was removed")
	default:
		v.record(file, line, link, now)
	}
}

func (v *verifier) record(file string, line *Line, link *access.Link, now *run) {
	v.result.Records++
	is := recordOf(line.Text, link)
	switch {
	case now == nil:
		now = v.begin(file, line, link, true)
	case link.Seq == 1 && link.Prev == "":
		now = v.begin(file, line, link, false)
	case link.Seq == now.last.seq+1 && link.Prev == now.last.hash:
	default:
		v.broken(file, line.Number, link, now)
		now = v.begin(file, line, link, false)
	}
	now.line, now.last = line.Number, is
	if now.roughly && link.Hash == "" {
		now.at, now.roughly = timeOf(line.Text), false
	}
	if v.opts.Head == fmt.Sprintf("%d:%s", is.seq, is.hash) {
		v.headSeen = true
	}
	v.signature(file, line, link, now)
}

// begin starts a run at a line.
func (v *verifier) begin(file string, line *Line, link *access.Link, begins bool) *run {
	r := &run{file: file, first: line.Number, link: *link, begins: begins, at: timeOf(line.Text), roughly: link.Hash != ""}
	v.runs = append(v.runs, r)
	if link.Seq == 1 && link.Prev == "" {
		v.note(file, line.Number, "a new chain begins")
	}
	return r
}

// compare orders runs by when they began, as far as that can be told.
func (r *run) compare(other *run) int {
	if !r.roughly && !other.roughly {
		return r.at.Compare(other.at)
	}
	return cmp.Or(r.at.Truncate(time.Hour).Compare(other.at.Truncate(time.Hour)), cmp.Compare(r.link.Seq, other.link.Seq))
}

func timeOf(line []byte) time.Time {
	var record struct {
		Time time.Time `json:"time"`
	}
	_ = json.Unmarshal(line, &record) // no time is the earliest
	return record.Time
}

// broken says what does not fit.
func (v *verifier) broken(file string, line int, link *access.Link, now *run) {
	switch {
	case link.Seq == now.last.seq+1:
		v.fault(file, now.line, "this record was changed: the one after it, on line %d, names another", line)
	case link.Seq > now.last.seq+1:
		v.fault(file, line, "%s missing before this record, which follows record %d on line %d", records(link.Seq-now.last.seq-1), now.last.seq, now.line)
	default:
		v.fault(file, line, "record %d stands after record %d of line %d: it was moved or repeated", link.Seq, now.last.seq, now.line)
	}
}

func records(n uint64) string {
	if n == 1 {
		return "a record is"
	}
	return fmt.Sprintf("%d records are", n)
}

func (v *verifier) signature(file string, line *Line, link *access.Link, now *run) {
	good := false
	if link.Hash != "" {
		erased, vouches := erasedBy(line.Text, link, v.opts.Key)
		if erased {
			v.result.Erased++
		} else {
			v.fault(file, line.Number, "the record was removed by somebody who has not the key, and something else put in its place")
		}
		good = vouches
	} else if link.Sig != "" && v.opts.Key != nil {
		if good = signedBy(line.Text, link.Sig, v.opts.Key); !good {
			v.fault(file, line.Number, "the signature does not fit: the record was changed, or another key signed it")
		}
	}
	if good {
		v.result.Signed++
		now.unsigned, now.signed = nil, true
		return
	}
	now.unsigned = append(now.unsigned, len(line.Text))
}

// stitch puts the files into the order of the chain and looks at what lies
// between them.
func (v *verifier) stitch() {
	after := map[string]*run{} // by the hash that they end with
	for _, r := range v.runs {
		after[r.last.hash] = r
	}
	followed := map[*run]bool{}
	var open []*run // whatever came before them is not among the files
	for _, r := range v.runs {
		if r.link.Prev == "" && r.link.Seq == 1 {
			continue
		}
		before := after[r.link.Prev]
		switch {
		case before != nil && before.last.seq+1 == r.link.Seq:
			followed[before] = true
		case r.begins:
			open = append(open, r)
		}
	}
	// Old files are deleted, so the very first record may follow on something.
	earliest := slices.MinFunc(v.runs, (*run).compare)
	for _, r := range open {
		if r == earliest {
			v.note(r.file, r.first, "the files begin with record %d; what came before is not among them", r.link.Seq)
			continue
		}
		v.fault(r.file, r.first, "what comes before record %d is in none of the files: a file is missing, or its end was cut off or changed", r.link.Seq)
	}
	v.ends(followed)
}

// ends looks at what no signature vouches for.
func (v *verifier) ends(followed map[*run]bool) {
	var head *run
	for _, r := range v.runs {
		if !followed[r] && (head == nil || r.last.seq >= head.last.seq) {
			head = r
		}
		if v.opts.Key == nil || followed[r] || len(r.unsigned) == 0 {
			continue
		}
		size := 0
		for _, n := range r.unsigned {
			size += n
		}
		v.result.Unsigned += len(r.unsigned)
		// One write that a crash cut before its signature is innocent, more is not.
		if !r.signed && r.link.Seq == 1 || size > batchBytes+MaxLine {
			v.fault(r.file, r.line, "no signature vouches for the last %d records up to this one", len(r.unsigned))
		} else {
			v.note(r.file, r.line, "the last %d records up to this one are not signed", len(r.unsigned))
		}
	}
	if head != nil {
		v.result.Head = fmt.Sprintf("%d:%s", head.last.seq, head.last.hash)
	}
}

// Sound reports whether nothing speaks of tampering.
func (v *Verified) Sound() bool { return v.FaultCount == 0 }

// ErrNothingToVerify is for files without a single record of a chain.
var ErrNothingToVerify = errors.New("audit log: no file holds a record of a chain")
