package audit

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadNamesTheLine(t *testing.T) {
	good := string(must(encode(event(1))))
	text := good + "\n" + "not json\n" + `{"time":"2026-11-23T12:00:00Z"}` + "\n" + strings.Repeat("x", 3*MaxLine) + "\n" + good + `{"kind":"dec`
	var got []string
	for e, err := range Read(strings.NewReader(text)) {
		switch {
		case err == nil:
			got = append(got, e.Request.ID)
		default:
			got = append(got, strings.SplitAfter(err.Error(), ":")[0])
		}
	}
	if strings.Join(got, " ") != "r1 line 3: line 4: line 5: r1 line 7:" {
		t.Error(got)
	}
	for range Read(strings.NewReader(good + good)) {
		break // must not go on after the loop has ended
	}
}

func TestReadEndsWithTheReader(t *testing.T) {
	broken := io.MultiReader(strings.NewReader(string(must(encode(event(1))))), iotest.ErrReader(io.ErrUnexpectedEOF))
	n := 0
	for _, err := range Read(broken) {
		if n++; n == 2 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
	if n != 2 {
		t.Errorf("%d items", n)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(must(encode(event(1))))
	f.Add([]byte("{}\n\n{\"kind\":\"login\"}\n{"))
	f.Add([]byte("null\n[]\n\"x\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := strings.Count(string(text), "\n") + 1
		for e, err := range Read(strings.NewReader(string(text))) {
			if lines--; lines < 0 {
				t.Fatal("more items than lines")
			}
			if (e == nil) == (err == nil) {
				t.Fatal("an item is an event or an error")
			}
			if e != nil {
				if _, err := encode(e); err != nil {
					t.Errorf("cannot be written again: %v", err)
				}
			}
		}
	})
}
