package access

import "testing"

func TestSignalTouchesWhatItNames(t *testing.T) {
	open := Request{
		Route: "wiki", Session: Session{ID: "s1"}, Device: Device{ID: "d1"},
		Identity: Identity{Issuer: "https://id.example", Subject: "ann"},
	}
	for name, c := range map[string]struct {
		signal Signal
		want   bool
	}{
		"everything":               {Signal{}, true},
		"the session":              {Signal{Session: "s1"}, true},
		"another session":          {Signal{Session: "s2"}, false},
		"the person":               {Signal{Issuer: "https://id.example", Subject: "ann"}, true},
		"a namesake":               {Signal{Issuer: "https://other.example", Subject: "ann"}, false},
		"the person elsewhere":     {Signal{Issuer: "https://id.example", Subject: "ann", Device: "d2"}, false},
		"the device":               {Signal{Device: "d1"}, true},
		"the route":                {Signal{Route: "wiki"}, true},
		"another route":            {Signal{Route: "mail"}, false},
		"a device, nobody's own":   {Signal{Device: "d2"}, false},
		"the person on the device": {Signal{Issuer: "https://id.example", Subject: "ann", Device: "d1"}, true},
	} {
		if got := c.signal.Touches(&open); got != c.want {
			t.Errorf("%s: touches %v", name, got)
		}
	}
}
