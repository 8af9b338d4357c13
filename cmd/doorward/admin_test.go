package main

import (
	"strings"
	"testing"
)

// The token of the admin API travels in plaintext within this machine only.
func TestAdminURL(t *testing.T) {
	for _, c := range []struct{ listen, override, want, problem string }{
		{"127.0.0.1:9901", "", "http://127.0.0.1:9901", ""},
		{":9901", "", "http://127.0.0.1:9901", ""},
		{"[::]:9901", "", "http://[::1]:9901", ""},
		{"192.0.2.7:9901", "", "", "not on this machine"}, // documentation only (RFC 5737): nobody has it
		{"127.0.0.1:9901", "https://admin.example.com/", "https://admin.example.com", ""},
		{"127.0.0.1:9901", "http://192.0.2.7:9901", "", "plaintext"},
		{"127.0.0.1:9901", "ftp://192.0.2.7", "", "no address"},
	} {
		got, err := adminURL(c.listen, c.override)
		if got != c.want || (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s %s: %q, %v", c.listen, c.override, got, err)
		}
	}
}
