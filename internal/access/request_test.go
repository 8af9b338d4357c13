package access

import (
	"reflect"
	"testing"
	"time"
)

// A request that is moved is as fresh as it was, in every respect: but for the
// end of a certificate, which is written in it.
func TestMovedRequestIsAsFreshAsItWas(t *testing.T) {
	noon := time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)
	var r Request
	var times []reflect.Value
	var names []string
	var each func(v reflect.Value, name string)
	each = func(v reflect.Value, name string) {
		if v.Type() == reflect.TypeFor[time.Time]() {
			times, names = append(times, v), append(names, name)
			return
		}
		for i := 0; v.Kind() == reflect.Struct && i < v.NumField(); i++ {
			if v.Type().Field(i).IsExported() {
				each(v.Field(i), name+"."+v.Type().Field(i).Name)
			}
		}
	}
	each(reflect.ValueOf(&r).Elem(), "")
	for _, v := range times {
		v.Set(reflect.ValueOf(noon))
	}
	r.MoveTo(noon.Add(time.Hour))
	for i, v := range times {
		want := noon.Add(time.Hour)
		if names[i] == ".Device.Certificate.NotAfter" {
			want = noon
		}
		if got := v.Interface().(time.Time); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", names[i], got, want)
		}
	}
	if len(times) < 12 {
		t.Errorf("only %q were found", names)
	}

	r = Request{Session: Session{Created: noon}}
	if r.MoveTo(noon.Add(time.Hour)); !r.Session.Created.Equal(noon) || !r.Session.Expires.IsZero() || !r.Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("of a request without a time: %+v", r)
	}
}
