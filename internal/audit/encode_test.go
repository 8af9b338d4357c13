package audit

import (
	"bytes"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

const (
	jwt    = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI4ZjFjMmQifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	cookie = "__Host-doorward=pT7w3vN0q1Yk8bJx2mZc5dRf6gHs9aLuEiOoPtVyQnM"
)

// Nothing puts a secret into an event. Should it happen, by whatever field, the
// log must not hold it: this fills every string of an event with secrets.
func TestNoSecretReachesTheLog(t *testing.T) {
	var e access.Event
	fill(reflect.ValueOf(&e).Elem())
	var out bytes.Buffer
	l := open(t, Config{}, Options{Stdout: &out})
	l.Record(&e)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing was filled in; does this test still look?")
	}
	looksSecret := regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.|doorward=\w|pT7w3vN0q1Yk8bJx2mZc5dRf6gHs9aLuEiOoPtVyQnM|c2lnbmF0dXJl`)
	if found := looksSecret.FindString(out.String()); found != "" {
		t.Errorf("%q in %s", found, out.String())
	}
}

func fill(v reflect.Value) {
	const secret = "/a?t=" + jwt + "; " + cookie + "; x"
	switch v.Kind() {
	case reflect.String:
		v.SetString(secret)
	case reflect.Pointer:
		if v.Type().Elem().PkgPath() != "" {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]any{secret: secret, "list": []any{secret}}))
	case reflect.Struct:
		if strings.HasPrefix(v.Type().PkgPath(), "github.com/doorward/") {
			for i := range v.NumField() {
				if v.Type().Field(i).Tag.Get("json") != "-" { // others never get into a record
					fill(v.Field(i))
				}
			}
		}
	}
}

// Groups that are kept with a session are not looked at each time; what looks like
// a token is hidden all the same, in them and around them.
func TestNoSecretHidesBehindKeptGroups(t *testing.T) {
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
	for name, edit := range map[string]func(r *access.Request){
		"nowhere":    func(*access.Request) {},
		"before":     func(r *access.Request) { r.Path = "/" + token },
		"beside":     func(r *access.Request) { r.Identity.Username = token },
		"after":      func(r *access.Request) { r.Identity.Login.ACR = token },
		"cookie":     func(r *access.Request) { r.Query = "doorward=" + strings.Repeat("A", 43) },
		"in it":      func(r *access.Request) { r.Identity.Groups[0] = token },
		"at its end": func(r *access.Request) { r.Identity.Groups[1] = token },
	} {
		for _, first := range []string{"a", strings.Repeat("a", longList)} {
			e := event(1)
			e.Request.Identity.Groups = []string{first, "doorward"}
			edit(e.Request)
			e.Request.Session = access.Session{ID: "s", Kept: &access.Kept{Groups: access.NewTexts(e.Request.Identity.Groups)}}
			var lines [2]string
			for range 2 { // the second time they are known
				lines[0] = string(must(encode(e)))
			}
			e.Request.Session.Kept = nil
			lines[1] = string(must(encode(e)))
			same := reflect.DeepEqual(membersOf(t, lines[0]), membersOf(t, lines[1])) && len(lines[0]) == len(lines[1])
			if !same || strings.Contains(lines[0], "eyJzdWIi") || strings.Contains(lines[0], "AAAAAA") || strings.Contains(lines[0], "[redacted]") == (name == "nowhere") {
				t.Errorf("%s:\n%s\nand without what is kept:\n%s", name, lines[0], lines[1])
			}
		}
	}
}

// A decision whose input cannot be written in full is still recorded.
func TestEventThatDoesNotFit(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"unencodable": {"n": math.NaN()},
		"too large":   {"s": strings.Repeat("x", MaxLine)},
	} {
		e := event(7)
		e.Request.Identity = access.Identity{Provider: "corp", Subject: "s", Claims: claims}
		line, err := encode(e)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		for got, bad := range Read(bytes.NewReader(line.whole())) {
			if bad != nil || got.Request.ID != "r7" || got.Request.Identity.Subject != "s" || !got.Incomplete || !strings.HasPrefix(got.Note, "recorded without claims") {
				t.Errorf("%s: %+v, %v", name, got, bad)
			}
		}
		if e.Request.Identity.Claims == nil || e.Note != "" {
			t.Errorf("%s: the caller's event was changed", name)
		}
	}
	e := event(8)
	e.Request.Path = "/" + strings.Repeat("x", MaxLine)
	line, err := encode(e)
	if err == nil || line.size() > 4096 {
		t.Fatal(line.size(), err)
	}
	for got, bad := range Read(bytes.NewReader(line.whole())) {
		if bad != nil || got.RequestID != "r8" || got.Kind != access.EventDecision {
			t.Errorf("%+v, %v", got, bad)
		}
	}
}

// Whoever decides again on a record has to know that it lacks something.
func TestHiddenTokensAreAdmitted(t *testing.T) {
	e := event(9)
	if line := must(encode(e)); bytes.Contains(line, []byte("incomplete")) {
		t.Errorf("nothing is missing: %s", line)
	}
	e.Request.Path = "/verify/" + jwt
	for got, bad := range Read(bytes.NewReader(must(encode(e)))) {
		if bad != nil || !got.Incomplete || got.Request.Path != "/verify/[redacted]" || e.Incomplete {
			t.Errorf("%+v, %v", got, bad)
		}
	}
}

// One event is one line, whatever is in it.
func TestLogInjection(t *testing.T) {
	e := event(1)
	e.Request.Path = "/a\n{\"kind\":\"login\"}\r\n\u2028"
	if line := must(encode(e)); bytes.Count(line, []byte("\n")) != 1 || bytes.Contains(line, []byte("\r")) {
		t.Errorf("%q", line)
	}
}
