package audit

import (
	"sync/atomic"
	"time"
)

// day is how a day begins in a record: 2026-11-26T. Every record has four times, of
// two days at most, and to find out what day it is is most of writing one.
type day struct {
	number int64 // since 1970
	text   [11]byte
}

// days are those that were written last.
var days [8]atomic.Pointer[day]

const secondsPerDay = 24 * 60 * 60

// appendTime writes a time as time.Time.AppendText does (RFC 3339 §5.6), in UTC
// faster.
func appendTime(to []byte, t time.Time) ([]byte, error) {
	seconds := t.Unix()
	if t.Location() != time.UTC || seconds < 0 || seconds >= 1<<37 { // the year 6325
		return t.AppendText(to)
	}
	number := seconds / secondsPerDay
	kept := &days[number%int64(len(days))]
	d := kept.Load()
	if d == nil || d.number != number {
		d = &day{number: number}
		t.AppendFormat(d.text[:0], "2006-01-02T")
		kept.Store(d)
	}
	to = append(to, d.text[:]...)
	rest := int(seconds % secondsPerDay)
	to = appendPair(to, rest/3600)
	to = appendPair(append(to, ':'), rest/60%60)
	to = appendPair(append(to, ':'), rest%60)
	if fraction := t.Nanosecond(); fraction > 0 {
		to = append(to, '.')
		for unit := 100_000_000; fraction > 0; unit /= 10 {
			to = append(to, byte('0'+fraction/unit))
			fraction %= unit
		}
	}
	return append(to, 'Z'), nil
}

func appendPair(to []byte, n int) []byte { return append(to, byte('0'+n/10), byte('0'+n%10)) }
