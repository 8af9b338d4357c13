package audit

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestTimesAreWrittenAsTheStandardLibraryDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	times := []time.Time{{}, time.Unix(0, 0), time.Unix(0, 0).UTC(), time.Unix(-1, 999).UTC(), time.Unix(1<<37, 0).UTC(), time.Unix(1<<37-1, 1).UTC(),
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2028, 2, 29, 23, 59, 59, 100_000_000, time.UTC), time.Now(), time.Now().UTC(), time.Now().In(time.FixedZone("", 3600))}
	for range 20_000 {
		nanos := r.Int64N(1e9)
		for range r.IntN(10) {
			nanos = nanos / 10 * 10 % 1e9 // zeros at the end, and none in front
		}
		times = append(times, time.Unix(r.Int64N(1<<38), nanos).UTC(), time.Unix(r.Int64N(20*secondsPerDay), nanos/1000*1000).UTC())
	}
	for _, at := range times {
		got, err := appendTime([]byte("x"), at)
		want, wantErr := at.AppendText([]byte("x"))
		if string(got) != string(want) || (err == nil) != (wantErr == nil) {
			t.Fatalf("%q, %v; want %q, %v", got, err, want, wantErr)
		}
	}
}

func BenchmarkTime(b *testing.B) {
	at, to := time.Date(2026, 11, 26, 12, 34, 56, 123_456_789, time.UTC), make([]byte, 0, 64)
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			appendTime(to, at)
		}
	})
	b.Run("AppendText", func(b *testing.B) {
		for b.Loop() {
			at.AppendText(to)
		}
	})
}
