package history

import "time"

// Work that is done once in a quarter is done around its end: in the last week
// of March, June, September and December and in the two weeks that follow.
const (
	quarterDaysBefore = 7
	quarterDaysAfter  = 14
)

// quarterEnd reports whether a day is around the end of a quarter.
func quarterEnd(day time.Time) bool {
	next := day.AddDate(0, 0, quarterDaysBefore)
	return quarterOf(next) != quarterOf(day) || quarterOf(day.AddDate(0, 0, -quarterDaysAfter)) != quarterOf(day)
}

func quarterOf(day time.Time) int { return day.Year()*4 + int(day.Month()-1)/3 }

// holdsQuarterEnd reports whether a span holds all days around the end of some
// quarter.
func holdsQuarterEnd(first, last time.Time) bool {
	for day := first; !day.After(last); day = day.AddDate(0, 0, 1) {
		next := day.AddDate(0, 0, 1)
		if quarterOf(next) != quarterOf(day) && !day.AddDate(0, 0, 1-quarterDaysBefore).Before(first.Truncate(24*time.Hour)) &&
			!day.AddDate(0, 0, quarterDaysAfter).After(last) {
			return true
		}
	}
	return false
}
