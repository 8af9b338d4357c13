package history

import (
	"bytes"
	"testing"

	"github.com/doorward/doorward/internal/audit"
)

// Whatever a log holds, each of its lines is counted once, and nothing in it
// stops the replay.
func FuzzReplay(f *testing.F) {
	w := smallWorld(f, 1)
	cfg := w.config()
	line := func(change string) []byte {
		e := w.event(cfg, &w.routes[0], habit{group: "dev", methods: []string{"GET"}, paths: []string{change}}, windowEnd, 1)
		var b bytes.Buffer
		encodeEvent(f, &b, e)
		return b.Bytes()
	}
	f.Add(line("/a/1"))
	f.Add(append(line("/a;b"), `{"kind":"login"}`+"\n{\n\n\x1f\x8b"...))
	f.Add([]byte(`{"kind":"decision","request":{"device":{"id":"x"}},"decision":{}}` + "\n" + `{"kind":"decision"}` + "\nnull\n[]"))
	f.Add([]byte(`{"kind":"decision","incomplete":true,"request":{"path":"/[redacted]","fault":"ambiguous_path","host":"wiki.example.com","scheme":"https"},"decision":{"outcome":"allow"}}`))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00"))
	f.Fuzz(func(t *testing.T, log []byte) {
		files := find(t, audit.Stdin)
		files.Stdin = bytes.NewReader(log)
		r := replay(t, files, cfg, Filter{})
		c := r.Log
		other := 0
		for _, n := range c.Other {
			other += n
		}
		if sum := c.Decisions + c.Own + other + c.Damaged + c.Torn + c.Foreign; sum != c.Lines {
			t.Fatalf("%d of %d lines: %+v", sum, c.Lines, c)
		}
		count := func(one Change) int { return one.Count }
		if sum := r.Same + total(r.Changes, count) + total(r.Reasons, count) + r.Inconsistencies() + r.Unknowns(); sum != c.Decisions {
			t.Fatalf("%d of %d decisions: %+v", sum, c.Decisions, r)
		}
	})
}
