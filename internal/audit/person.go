package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

// Person finds what a log has about one person, or one machine.
type Person struct {
	provider, subject string
	user              string
	pseudonyms        *Pseudonyms // nil: none are in use
	// sessions and requests are theirs, as far as events that name them tell: some
	// events name nothing else.
	sessions, requests map[string]bool
}

// NewPerson returns a finder for PROVIDER:SUB. It knows nothing before Learn.
func NewPerson(user string, pseudonyms *Pseudonyms) (*Person, error) {
	provider, subject, ok := strings.Cut(user, ":")
	if !ok || provider == "" || subject == "" {
		return nil, fmt.Errorf("%q is no user: write PROVIDER:SUB, as the audit log and doorward sessions do", user)
	}
	return &Person{provider: provider, subject: subject, user: user, pseudonyms: pseudonyms,
		sessions: map[string]bool{}, requests: map[string]bool{}}, nil
}

// Learn reads files for the sessions and the requests of the person.
func (p *Person) Learn(files *Files) error {
	for batch := range files.Batches() {
		for i := range batch.Lines {
			line := &batch.Lines[i]
			if err := unread(batch.File, line); err != nil {
				return err
			}
			if e := eventIn(line.Text); e != nil && p.did(e) {
				p.learn(e)
			}
		}
	}
	return nil
}

// unread is an error for a line behind which a file could not be read: what it
// holds about somebody is not known then.
func unread(file string, line *Line) error {
	if line.Err == nil || errors.Is(line.Err, ErrTooLong) {
		return nil
	}
	return fmt.Errorf("audit log: %s: %w", Place(file, line.Number), line.Err)
}

func (p *Person) learn(e *access.Event) {
	for _, id := range []string{e.Session, sessionOf(e)} {
		if id != "" {
			p.sessions[id] = true
		}
	}
	// A login names the request that it happened in, which was nobody's.
	if e.Kind != access.EventDecision && e.RequestID != "" {
		p.requests[e.RequestID] = true
	}
}

func sessionOf(e *access.Event) string {
	if e.Request == nil {
		return ""
	}
	return e.Request.Session.ID
}

// eventIn decodes a line, nil if it is no event or nobody can be in it.
func eventIn(line []byte) *access.Event {
	if !bytes.HasPrefix(line, []byte("{")) {
		return nil
	}
	e := new(access.Event)
	if json.Unmarshal(line, e) != nil || e.Kind == "" || e.Kind == access.EventErased {
		return nil
	}
	return e
}

// did reports whether an event is of the person: its session and its request are
// theirs. Those of an administrator's action, and of an event whose words mention
// somebody, may be anybody's: the session that he has ended is not his own.
func (p *Person) did(e *access.Event) bool {
	return p.called(e, func(subject, user string) bool {
		return e.Request != nil && e.Request.Identity.Provider == p.provider && e.Request.Identity.Subject == subject ||
			e.Kind != access.EventAdmin && e.Actor == user
	})
}

// named reports whether an event names the person.
func (p *Person) named(e *access.Event) bool {
	return p.did(e) || p.called(e, func(_, user string) bool {
		return e.Actor == user || mentions(e.Note, user) || mentions(e.Why, user)
	})
}

// called asks about the person by their name, and by the pseudonym that they had at
// the time of an event.
func (p *Person) called(e *access.Event, is func(subject, user string) bool) bool {
	if is(p.subject, p.user) {
		return true
	}
	if p.pseudonyms == nil {
		return false
	}
	subject := p.pseudonyms.subject(p.provider, p.subject, e.Time)
	return is(subject, p.provider+":"+subject)
}

// mentions reports whether a text has a word.
func mentions(text, word string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], word)
		if i < 0 {
			return false
		}
		before, _ := utf8.DecodeLastRuneInString(text[:at+i])
		rest := text[at+i+len(word):]
		after, size := utf8.DecodeRuneInString(rest)
		if strings.ContainsRune(".:/|", after) { // ends a sentence, or goes on with a name
			after, _ = utf8.DecodeRuneInString(rest[size:])
		}
		if !within(before) && !within(after) {
			return true
		}
		at += i + len(word)
	}
}

func within(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_@+", r))
}

// About reports whether an event is about the person: it names them, their
// session, or a request of theirs.
func (p *Person) About(e *access.Event) bool {
	return p.sessions[e.Session] || p.sessions[sessionOf(e)] || p.requests[e.RequestID] ||
		e.Request != nil && p.requests[e.Request.ID] || p.named(e)
}

// Export writes every line that is about the person, as it stands in the files,
// and returns their number.
func (p *Person) Export(files *Files, to io.Writer) (n int, err error) {
	for batch := range files.Batches() {
		for i := range batch.Lines {
			line := &batch.Lines[i]
			if err := unread(batch.File, line); err != nil {
				return n, err
			}
			if e := eventIn(line.Text); e == nil || !p.About(e) {
				continue
			}
			if _, err := to.Write(append(line.Text, '\n')); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
