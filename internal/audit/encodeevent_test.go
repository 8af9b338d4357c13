package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// byReflection is what the encoder has to match.
func byReflection(e *access.Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return b.Bytes(), err
}

func byHeart(e *access.Event) ([]byte, error) {
	enc := newEncoder()
	defer enc.free()
	enc.event(e)
	return append(encoded{enc.kept.begin, enc.to}.appendTo(nil), '\n'), enc.err
}

func compareEncodings(t *testing.T, e *access.Event) {
	t.Helper()
	want, err := byReflection(e)
	got, failed := byHeart(e)
	if (err == nil) != (failed == nil) {
		t.Fatalf("%v, where encoding/json says %v: %+v", failed, err, e)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("the encoder does not know a field, or not what its tag says:\n%s\nencoding/json writes\n%s", got, want)
	}
}

// Each field alone shows that none is forgotten, and what is left out with it;
// all kinds of events show the commas between them.
func TestEncoderMatchesEncodingJSON(t *testing.T) {
	f := &filler{t: t, Rand: rand.New(rand.NewPCG(1, 2))}
	f.fill(reflect.ValueOf(new(access.Event)).Elem()) // counts
	fields := f.seen
	if fields < 100 {
		t.Fatalf("%d fields; does this test still look?", fields)
	}
	for n := range fields {
		for range 20 {
			e := new(access.Event)
			f.seen, f.wants = 0, func(i int) bool { return i == n }
			f.fill(reflect.ValueOf(e).Elem())
			compareEncodings(t, e)
		}
	}
	for range 3000 {
		e, share := new(access.Event), f.IntN(11)
		f.seen, f.wants = 0, func(int) bool { return f.IntN(10) < share }
		f.fill(reflect.ValueOf(e).Elem())
		compareEncodings(t, e)
	}
	compareEncodings(t, new(access.Event))
}

// filler gives fields values of their type, often odd ones. What points
// elsewhere is followed, so that every field has a number.
type filler struct {
	t *testing.T
	*rand.Rand
	seen  int
	wants func(field int) bool // nil: all
}

func (f *filler) fill(v reflect.Value) {
	switch v.Type() {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr]():
		f.leaf(v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				f.fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		before := f.seen
		f.fill(v.Elem())
		if f.wants != nil && v.Elem().IsZero() && f.IntN(4) > 0 && f.seen > before {
			v.SetZero()
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Struct {
			f.leaf(v)
			return
		}
		list, before := reflect.MakeSlice(v.Type(), 1+f.IntN(2), 3), f.seen
		for i := range list.Len() {
			f.seen = before
			f.fill(list.Index(i))
		}
		switch {
		case !list.Index(0).IsZero():
			v.Set(list)
		case f.IntN(3) == 0:
			v.Set(list.Slice(0, 0))
		}
	default:
		f.leaf(v)
	}
}

func (f *filler) leaf(v reflect.Value) {
	f.seen++
	if f.wants != nil && !f.wants(f.seen-1) {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(f.time()))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(oneOf(f, netip.Addr{}, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"),
			netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("fe80::1%eth\"0<\x01"))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(oneOf(f, 0, 1, -1, math.MaxInt64, math.MinInt64, f.Int64()))
	case reflect.Uint64:
		v.SetUint(oneOf(f, 0, 1, uint64(math.MaxUint64)))
	case reflect.Uint8:
		v.SetUint(f.Uint64N(7))
	case reflect.Slice:
		list := make([]string, f.IntN(4))
		for i := range list {
			list[i] = f.text()
		}
		v.Set(reflect.ValueOf(list))
	case reflect.Map:
		v.Set(reflect.ValueOf(f.claims(0)))
	default:
		f.t.Fatalf("teach this test about %s", v.Type())
	}
}

func oneOf[T any](f *filler, values ...T) T { return values[f.IntN(len(values))] }

func (f *filler) time() time.Time {
	at := time.Unix(f.Int64N(1<<33), oneOf(f, 0, 1, 120_000_000, f.Int64N(1e9)))
	return oneOf(f, at.UTC(), at, at.In(time.FixedZone("", 5400)), at.In(time.FixedZone("", -3*3600)), time.Time{}, time.Time{}.In(time.FixedZone("", 60)),
		time.Now(), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), at.In(time.FixedZone("", 25*3600)))
}

// oddTexts are what has to be escaped, and what only looks so.
var oddTexts = []string{"", "a", "alice@example.com", "https://app.example/a?b=1&c=<2>", "\"\\/", "\x00\x01\x1f\x7f", "\b\f\n\r\t", "\u2028\u2029\u202a\u2027",
	"\xff", "\xc3\x28", "\xe2\x80", "\ufffd", "\xed\xa0\x80", "\xf4\x90\x80\x80", "straße", "日本語のグループ", "🔑", "0123456\"", "01234567\\", "01234567é89abcdef"}

func (f *filler) text() string {
	var b strings.Builder
	for range 1 + f.IntN(3) {
		b.WriteString(oneOf(f, oddTexts...))
	}
	return b.String()
}

func (f *filler) claims(depth int) map[string]any {
	claims := map[string]any{}
	for range f.IntN(5) {
		claims[f.text()] = f.claim(depth)
	}
	return claims
}

func (f *filler) claim(depth int) any {
	if depth < 4 && f.IntN(3) == 0 {
		return oneOf[any](f, f.claims(depth+1), []any{f.claim(depth + 1), f.claim(depth + 1)}, []any{}, []any(nil), map[string]any(nil), []string{f.text()}, map[string]int{"n": 1})
	}
	return oneOf[any](f, nil, true, false, f.text(), 0.0, math.Copysign(0, -1), 1.0, -17.5, 1e-6, 9.9e-7, 1e-9, 1e20, 1e21, math.MaxFloat64, f.NormFloat64(),
		float32(0.1), 7, uint8(3), json.Number("1e5"), json.Number(""), json.RawMessage(`{"a": 1}`), f.time(), []byte("bytes"), struct{ A string }{f.text()})
}

// Claims that nest deeper than the encoder follows are written all the same,
// and those that never end are an error, not the end of the process.
func TestDeepClaims(t *testing.T) {
	e := event(1)
	var deep any = "the end"
	for range 3 * deepClaims {
		deep = map[string]any{"in": []any{deep, "&"}}
	}
	e.Request.Identity.Claims = map[string]any{"deep": deep}
	compareEncodings(t, e)
	e.Request.Identity.Claims["deep"] = e.Request.Identity.Claims
	compareEncodings(t, e)
}

// What is kept with a session is written as if it were not, and only while it is
// what the request says.
func TestKeptGroupsAreThoseOfTheRequest(t *testing.T) {
	e := event(1)
	groups := access.NewTexts([]string{"a & b", "\"quoted\"", "\u2028", "z"})
	e.Request.Session.Kept = &access.Kept{Groups: groups}
	e.Request.Identity.Groups = groups.List()
	compareEncodings(t, e)
	compareEncodings(t, e) // which finds them encoded
	for _, other := range [][]string{nil, {}, {"a & b"}, groups.List()[:3], groups.List()[1:], {"a & b", "b", "c", "z"}} {
		e.Request.Identity.Groups = other
		compareEncodings(t, e)
	}
	e.Request.Session.Kept = &access.Kept{}
	compareEncodings(t, e)
}

func FuzzQuoted(f *testing.F) {
	for _, text := range oddTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		var got encoder
		got.quoted(s)
		if got.to = append(got.to, '\n'); !bytes.Equal(got.to, want.Bytes()) {
			t.Errorf("%q is %s, where encoding/json writes %s", s, got.to, want.Bytes())
		}
	})
}

// ordinary is an allowed request of somebody in so many groups, whose session is in
// memory.
func ordinary(groups int) *access.Event {
	at := time.Date(2026, 5, 4, 9, 30, 0, 123456789, time.UTC)
	e := event(1)
	e.Time, e.Request.Time, e.Request.Route, e.RequestID, e.Session = at, at, "wiki", e.Request.ID, "s-4f1d2c"
	e.Request.Network.IP = netip.MustParseAddr("203.0.113.9")
	e.Request.Session = access.Session{ID: "s-4f1d2c", Created: at, Expires: at.Add(10 * time.Hour)}
	e.Request.Identity = access.Identity{Provider: "corp", Issuer: "https://login.corp.example.com", Subject: "8f1c2d", Email: "alice@example.com", EmailVerified: true,
		Name: "Alice Example", Claims: map[string]any{"deviceid": "d-1", "locale": "de"}, Login: access.Login{Time: at, ACR: "phr", AMR: []string{"hwk", "user"}}}
	e.Request.Device = access.Device{ID: "d-1", MatchedBy: "claim.deviceid", Source: "inventory", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes,
		OS: "macos", OSVersion: "15.5", SeenAt: at, ObservedAt: at}
	e.Decision.Policy, e.Decision.Rule = "3f9c1b2a", "allow/engineers-read"
	e.Response = access.Response{Status: 200, BytesOut: 5120, Duration: 1234567, Decide: 45678, Wait: 987654,
		TLS: access.TLS{Version: "TLS 1.3", Group: "X25519MLKEM768"}, Upstream: "10.0.0.7:8080"}
	return inGroups(groups, e)
}

// BenchmarkEncode compares what an allowed request costs with encoding/json.
func BenchmarkEncode(b *testing.B) {
	for _, groups := range []int{5, 500} {
		e := ordinary(groups)
		for name, encode := range map[string]func(*access.Event) error{
			"whole":      func(e *access.Event) error { _, err := encode(e); return err },
			"encoding":   func(e *access.Event) error { _, err := byHeart(e); return err },
			"reflection": func(e *access.Event) error { _, err := byReflection(e); return err },
		} {
			b.Run(fmt.Sprintf("%s/groups=%d", name, groups), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := encode(e); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
