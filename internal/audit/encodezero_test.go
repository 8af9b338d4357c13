package audit

import (
	"reflect"
	"testing"
	"time"
)

// Each field of each struct, and of those within, has to count.
func TestZeroIsWhatReflectionSays(t *testing.T) {
	eachField(t, zeroIdentity)
	eachField(t, zeroLogin)
	eachField(t, zeroDevice)
	eachField(t, zeroCertificate)
}

func eachField[T any](t *testing.T, zero func(*T) bool) {
	var none T
	if !zero(&none) {
		t.Errorf("%T: nothing is something", none)
	}
	var visit func(at func(*T) reflect.Value)
	visit = func(at func(*T) reflect.Value) {
		of := at(&none).Type()
		if of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]() {
			for i := range of.NumField() {
				visit(func(v *T) reflect.Value { return at(v).Field(i) })
			}
			return
		}
		var v T
		field := at(&v)
		switch {
		case of == reflect.TypeFor[time.Time]():
			field.Set(reflect.ValueOf(time.Time{}.In(time.FixedZone("", 0)))) // as little as it can be
		case of.Kind() == reflect.Slice:
			field.Set(reflect.MakeSlice(of, 0, 0))
		case of.Kind() == reflect.Map:
			field.Set(reflect.MakeMap(of))
		case of.Kind() == reflect.String:
			field.SetString("x")
		case of.Kind() == reflect.Bool:
			field.SetBool(true)
		case field.CanUint():
			field.SetUint(1)
		case field.CanInt():
			field.SetInt(1)
		default:
			t.Fatalf("%T has a field of type %s, which this test does not know", none, of)
		}
		if zero(&v) || reflect.ValueOf(v).IsZero() {
			t.Errorf("%T: %+v is taken for nothing", none, v)
		}
	}
	visit(func(v *T) reflect.Value { return reflect.ValueOf(v).Elem() })
}
