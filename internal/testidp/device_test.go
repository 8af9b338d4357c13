package testidp

import "testing"

func TestLoopbackRedirects(t *testing.T) {
	accepts := Loopback("/callback")
	for uri, want := range map[string]bool{
		"http://127.0.0.1:49152/callback":     true,
		"http://127.0.0.1:1/callback":         true,
		"http://[::1]:8080/callback":          true,
		"http://127.0.0.1/callback":           false,
		"https://127.0.0.1:1/callback":        false,
		"http://localhost:1/callback":         false, // RFC 8252 §8.3
		"http://127.0.0.1:1/other":            false,
		"http://127.0.0.1:1/callback?x=1":     false,
		"http://127.0.0.1:1/callback#x":       false,
		"http://u@127.0.0.1:1/callback":       false,
		"http://10.0.0.1:1/callback":          false,
		"http://127.0.0.1.evil.test/callback": false,
		"http://127.0.0.1:1@evil.test/":       false,
		"":                                    false,
	} {
		if got := accepts(uri); got != want {
			t.Errorf("%s: %v", uri, got)
		}
	}
}
