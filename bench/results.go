package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// results are the last tables of all cases, each with the occasion on which it
// was made: a run of some cases leaves the others as they were.
type results struct {
	Cases []result `json:"cases"`
}

// result is the last table of one case.
type result struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	About    string   `json:"about"`
	Occasion occasion `json:"occasion"`
	Table    *table   `json:"table"`
}

// occasion is when, where and how something was measured.
type occasion struct {
	Date    string  `json:"date"`
	Command string  `json:"command"`
	Commit  string  `json:"commit"`
	Machine machine `json:"machine"`
	Pinned  bool    `json:"pinned"` // proxy and load have cores of their own
}

func (o occasion) String() string {
	pinned := "not pinned"
	if o.Pinned {
		pinned = "proxy on one core, load and backend on another"
	}
	return fmt.Sprintf("`%s` on %s, at %s; %s; %s", o.Command, o.Date, o.Commit, o.Machine, pinned)
}

func resultsPath(root string) string { return filepath.Join(root, "bench", "results.json") }
func pagePath(root string) string    { return filepath.Join(root, "docs", "performance.md") }

func readResults(root string) (*results, error) {
	text, err := os.ReadFile(resultsPath(root))
	if errors.Is(err, fs.ErrNotExist) {
		return &results{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, then all cases are measured again", resultsPath(root), err)
	}
	return r, nil
}

// replace puts a table in the place of the case's last one.
func (r *results) replace(c benchCase, t *table, o occasion) {
	var list []result
	for _, known := range cases { // the order of the cases; one that is gone goes
		if known.id == c.id {
			list = append(list, result{ID: c.id, Title: c.title, About: c.about, Occasion: o, Table: t})
			continue
		}
		for _, have := range r.Cases {
			if have.ID == known.id {
				list = append(list, have)
			}
		}
	}
	r.Cases = list
}

// begins and ends mark the part of the page that is written here.
const (
	begins = "<!-- make bench writes from here -->\n"
	ends   = "<!-- to here -->\n"
)

// write keeps the results, and puts the tables into the page.
func (r *results) write(root string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(resultsPath(root), append(text, '\n'), 0o644); err != nil {
		return err
	}
	page, err := os.ReadFile(pagePath(root))
	if err != nil {
		return err
	}
	page, err = r.fill(page)
	if err != nil {
		return fmt.Errorf("%s: %w", pagePath(root), err)
	}
	return os.WriteFile(pagePath(root), page, 0o644)
}

// fill replaces the tables of a page.
func (r *results) fill(page []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(begins))
	_, after, closed := bytes.Cut(rest, []byte(ends))
	if !ok || !closed {
		return nil, fmt.Errorf("there are no lines %q and %q to write between", strings.TrimSpace(begins), strings.TrimSpace(ends))
	}
	var s bytes.Buffer
	s.Write(before)
	s.WriteString(begins)
	last := occasion{}
	for _, c := range r.Cases {
		fmt.Fprintf(&s, "\n## %s\n\n%s\n\n", c.Title, c.About)
		s.WriteString(c.Table.markdown())
		if c.Occasion != last {
			fmt.Fprintf(&s, "\nMeasured by %s.\n", c.Occasion)
			last = c.Occasion
		}
	}
	s.WriteString("\n" + ends)
	s.Write(after)
	return s.Bytes(), nil
}
