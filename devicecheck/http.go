package devicecheck

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// httpInventory is any inventory that answers JSON, read by a mapping from the
// configuration.
type httpInventory struct {
	*remote
	items, next jsonPath
	paged       bool
	fields      []mapped
}

// mapped is a field of ours with the place of its value in a record.
type mapped struct {
	*field
	path    jsonPath
	yes, no []string
	levels  map[string]access.Risk // by the word of the inventory; nil for ours
}

func newHTTP(s Source, o outside) (*httpInventory, error) {
	r, err := newRemote(s.URL, o)
	if err != nil {
		return nil, err
	}
	h := &httpInventory{remote: r, paged: s.Next != ""}
	if h.items, err = parsePath(s.Items); err != nil {
		return nil, err
	}
	if h.next, err = parsePath(s.Next); err != nil {
		return nil, err
	}
	for n := range fields { // in our order, whatever that of the map
		want, ok := s.Fields[fields[n].name]
		if !ok {
			continue
		}
		path, err := parsePath(want.Path)
		if err != nil {
			return nil, err
		}
		f := mapped{field: &fields[n], path: path, yes: want.Yes, no: want.No}
		if f.levels, err = levels(want.Levels); err != nil {
			return nil, err
		}
		h.fields = append(h.fields, f)
	}
	h.authorize = func(_ context.Context, _ *pull, header http.Header, _ bool) (bool, error) {
		for name, value := range s.Headers {
			header.Set(name, value.Reveal())
		}
		return false, nil
	}
	return h, nil
}

// levels turns the words of each level around; nothing if there are none.
func levels(words map[string][]string) (map[string]access.Risk, error) {
	var meaning map[string]access.Risk
	for level, list := range words {
		var risk access.Risk
		if err := risk.UnmarshalText([]byte(level)); err != nil {
			return nil, err
		}
		for _, word := range list {
			if meaning == nil {
				meaning = map[string]access.Risk{}
			}
			meaning[word] = risk
		}
	}
	return meaning, nil
}

// fetch implements fetcher.
func (h *httpInventory) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := h.begin()
	if err != nil {
		return nil, err
	}
	if h.paged {
		_, err = p.byLink(ctx, h.home, h.items, h.next, p.adding(h.device))
	} else {
		_, _, err = p.take(ctx, h.home, h.items, p.adding(h.device))
	}
	if err != nil {
		return nil, err
	}
	return p.done(have)
}

// device reads one record. What is missing or of an unexpected kind stays
// unknown; without an id, or with a certificate that is none, the answer is not
// what the mapping was written for.
func (h *httpInventory) device(p *pull, record map[string]any) (access.Device, error) {
	var d access.Device
	for _, f := range h.fields {
		value := f.path.in(record)
		if f.name == reasonsField {
			noteAll(&d, value)
			continue
		}
		text, ok := scalar(value)
		switch f.name {
		case "id":
			if !ok {
				return d, fmt.Errorf("a record has no text or number %q, its id", strings.Join(f.path, "."))
			}
			d.ID = text
		case "serial", "fingerprint":
			if text == "" {
				continue
			}
			if err := f.apply(&d, text); err != nil {
				return d, fmt.Errorf("%s: %w", f.name, err)
			}
		case "last_seen":
			d.SeenAt = moment(value)
		case "grace_until":
			d.GraceUntil = moment(value)
		case riskField:
			d.Risk = f.risk(p.odd, value, text)
		default:
			switch {
			case f.fact:
				text = f.word(p.odd, value, text)
			default:
				text = plain(text)
			}
			if err := f.apply(&d, text); err != nil {
				return d, fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return d, nil
}

// risk translates a value of the inventory; what is not listed is unknown.
func (f *mapped) risk(odd oddities, value any, text string) access.Risk {
	words := f.levels
	if words == nil {
		words = ownLevels
	}
	risk, listed := words[text]
	if !listed {
		odd.note(f.name, value)
	}
	return risk
}

// ownLevels are the words of files.
var ownLevels = map[string]access.Risk{
	"none": access.RiskNone, "low": access.RiskLow, "medium": access.RiskMedium, "high": access.RiskHigh, "unknown": access.RiskUnknown,
}

// word translates a value of the inventory into yes, no, or nothing.
func (f *mapped) word(odd oddities, value any, text string) string {
	yes, no := f.yes, f.no
	if len(yes)+len(no) == 0 {
		yes, no = []string{"true", "yes"}, []string{"false", "no"}
	}
	switch {
	case value == nil:
	case slices.Contains(yes, text):
		return "yes"
	case slices.Contains(no, text):
		return "no"
	}
	odd.note(f.name, value)
	return ""
}

// scalar returns a text, a number as it was written, or true or false.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return fmt.Sprint(v), false // is no id
	}
	return "", false
}

func noteAll(d *access.Device, value any) {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	for _, reason := range list {
		note(d, plain(reason))
	}
}
