package access

import "testing"

func TestLoopbackIsNeverElsewhere(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "app.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "LOCALHOST": false, "localhost.example": false, "notlocalhost": false, "0.0.0.0": false, "::": false,
		"10.0.0.1": false, "127.1": false, "2130706433": false, "[::1]": false,
	} {
		if Loopback(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}
