package devicecheck

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/doorward/doorward/internal/access"
)

// maxEmpty is how many pages in a row may bring nothing.
const maxEmpty = 100

// each takes one record of a page. Its error fails the reading.
type each func(record map[string]any) error

// adding is an each that adds the device of every record.
func (p *pull) adding(device func(p *pull, record map[string]any) (access.Device, error)) each {
	return func(record map[string]any) error {
		d, err := device(p, record)
		if err != nil {
			return err
		}
		return p.add(d)
	}
}

// take reads the page at u, hands each record of the array at items on, and
// returns the rest of the page.
func (p *pull) take(ctx context.Context, u *url.URL, items jsonPath, each each) (around any, records int, err error) {
	body, err := p.page(ctx, u)
	if err != nil {
		return nil, 0, err
	}
	around, err = readPage(body, items, func(record map[string]any) error {
		records++
		return each(record)
	})
	if errors.Is(err, errNoArray) && p.emptyAs != nil && p.emptyAs(around) {
		err = nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", place(u), err)
	}
	if p.empty++; records > 0 {
		p.empty = 0
	}
	if p.empty > maxEmpty {
		return nil, 0, fmt.Errorf("%s: more than %d pages in a row are empty", place(u), maxEmpty)
	}
	return around, records, nil
}

// byLink reads the pages from u on, of which each holds the link to the next
// one at next. It returns the rest of the last page.
func (p *pull) byLink(ctx context.Context, u *url.URL, items, next jsonPath, each each) (any, error) {
	for {
		around, _, err := p.take(ctx, u, items, each)
		if err != nil {
			return nil, err
		}
		link, more, err := nextLink(next, around)
		if err != nil || !more {
			return around, err
		}
		if u, err = u.Parse(link); err != nil {
			return nil, errors.New("the link to the next page is no URL")
		}
	}
}

// byToken reads the pages from u on, of which each holds the value of the
// parameter that asks for the next one. next returns it from the rest of a page.
func (p *pull) byToken(ctx context.Context, u *url.URL, items jsonPath, parameter string, next func(around any) (string, bool, error), each each) (any, error) {
	for {
		around, _, err := p.take(ctx, u, items, each)
		if err != nil {
			return nil, err
		}
		token, more, err := next(around)
		if err != nil || !more {
			return around, err
		}
		following := *u
		query := u.Query()
		query.Set(parameter, token)
		following.RawQuery = query.Encode()
		u = &following
	}
}

// byNumber reads pages by their number until one is empty: a server may give
// fewer records per page than it was asked for. name tells records apart; a
// page that has none but known ones is a server that ignores the number. It
// returns the rest of the last page that had records, and how many there were.
func (p *pull) byNumber(ctx context.Context, address func(page int) *url.URL, items jsonPath, name func(record map[string]any) string, each each) (around any, total int, err error) {
	seen := map[string]bool{}
	for page := 0; ; page++ {
		fresh := 0
		rest, records, err := p.take(ctx, address(page), items, func(record map[string]any) error {
			if n := name(record); !seen[n] {
				seen[n] = true
				fresh++
			}
			return each(record)
		})
		if page == 0 || records > 0 {
			around = rest
		}
		switch {
		case err != nil:
			return nil, 0, err
		case records == 0:
			return around, len(seen), nil
		case fresh == 0:
			return nil, 0, errors.New("the server gives the same records again")
		}
	}
}

// nextLink returns the link to the next page, or the token for it, and whether
// there is one.
func nextLink(path jsonPath, around any) (string, bool, error) {
	switch v := path.in(around).(type) {
	case nil:
		return "", false, nil
	case string:
		return v, v != "", nil
	default:
		return "", false, errors.New("the link to the next page is no text")
	}
}
