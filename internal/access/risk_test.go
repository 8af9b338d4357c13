package access

import "testing"

// Every level reads back as itself, only none and low are low, and whatever is
// no level is unknown or an error.
func TestRisk(t *testing.T) {
	for word, low := range map[string]Tri{"none": Yes, "low": Yes, "medium": No, "high": No, "unknown": Unknown} {
		got := RiskHigh + 1
		if err := got.UnmarshalText([]byte(word)); err != nil || got.String() != word || got.Low() != low {
			t.Errorf("%s: %v, low %v, %v", word, got, got.Low(), err)
		}
	}
	for _, text := range []string{"Low", "informational", "0", "no"} {
		got := RiskHigh
		if err := got.UnmarshalText([]byte(text)); err == nil || got != RiskHigh {
			t.Errorf("%q was read as %v", text, got)
		}
	}
	if beyond := RiskHigh + 1; beyond.Low() != Unknown || beyond.String() != "unknown" {
		t.Errorf("a level that does not exist is %v", beyond)
	}
}
