package config

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// noon is the instant of imagined requests.
var noon = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

func TestSomeoneIsReadAsStrictlyAsTheConfiguration(t *testing.T) {
	cfg := example(t, "full.yaml")
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "provider: corp\ngrups: [eng]", `:2:1: grups: unknown key "grups"`},
		{"suggestion", "provider: corp\ngrups: [eng]", "did you mean groups?"},
		{"unknown provider", "provider: crop\nsub: x", `:1:11: provider: no provider has the id "crop"`},
		{"no provider", "sub: x", "the provider is missing"},
		{"our name of a group", "provider: corp\ngroups: [engineers]", "such as eng"},
		{"address", "ip: there", `"there" is no address`},
		{"wrong type", "provider: corp\nclaims: [a]", "must be a mapping"},
		{"a machine logs in", "provider: services\nmachine: true\nacr: mfa", "a machine does not log in"},
		{"no number", "provider: corp\nclaims: {n: 99999999999999999999}", "is no number"},
		{"an alias", "provider: corp\nclaims: {n: &a 1}", "anchor"},
	} {
		path := filepath.Join(t.TempDir(), "who.yaml")
		write(t, path, test.text)
		if _, err := cfg.ReadSomeone(path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := cfg.ReadSomeone(filepath.Join(t.TempDir(), "gone.yaml")); err == nil {
		t.Error("a missing file is nobody")
	}
}

func TestSomeoneBecomesAnIdentity(t *testing.T) {
	cfg := example(t, "full.yaml")
	path := filepath.Join(t.TempDir(), "who.yaml")
	write(t, path, "provider: partners\nsub: bob\nemail: bob@partner.example.net\ngroups: [b, a]\nacr: '1'\namr: [ngcmfa]\nacrs: [c1]\nlogin_age: 5m\nip: 192.0.2.7\n"+
		"claims: {level: 3, share: 0.5, on: true, since: 2020-01-01, tags: [x, 2], deep: {a: b}}\n")
	who, err := cfg.ReadSomeone(path)
	if err != nil {
		t.Fatal(err)
	}
	req := &access.Request{Time: noon}
	if err := cfg.As(req, who); err != nil {
		t.Fatal(err)
	}
	id := req.Identity
	if id.User() != "partners:bob" || id.Issuer != "https://partners.example.net" || !id.EmailVerified || len(id.Groups) > 0 || // nobody believes its groups

		!id.Login.Time.Equal(noon.Add(-5*time.Minute)) || req.Network.IP.String() != "192.0.2.7" {
		t.Errorf("%+v", req)
	}
	// The level is what the provider's table says, as for a live login.
	if !id.Login.Reaches("phr") || !id.Login.Reaches("c1") {
		t.Errorf("levels %v", id.Login.Levels)
	}
	if c := id.Claims; c["level"] != int64(3) || c["share"] != 0.5 || c["on"] != true || c["since"] != "2020-01-01" ||
		len(c["tags"].([]any)) != 2 || c["deep"].(map[string]any)["a"] != "b" {
		t.Errorf("claims %#v", c)
	}
	write(t, path, "\n")
	who, err = cfg.ReadSomeone(path)
	if err != nil {
		t.Fatal(err)
	}
	req = &access.Request{Time: noon}
	if err := cfg.As(req, who); err != nil || !req.Identity.Nobody() {
		t.Errorf("an empty file is %+v, %v", req.Identity, err)
	}
}

// A device like a profile passes it, has nothing beyond it, and fails with any
// single fact changed.
func TestDeviceLikeAProfile(t *testing.T) {
	cfg := example(t, "full.yaml")
	decide := func(dev access.SomeDevice) access.Decision {
		target, _ := url.Parse("https://billing.corp.example.com/")
		req, err := proxy.Imagine(cfg.Table, "GET", target)
		if err != nil {
			t.Fatal(err)
		}
		req.Time = noon
		who := &access.Someone{Provider: "corp", Groups: []string{"eng"}, ACR: "phr", AMR: []string{"hwk"}}
		if err := cfg.As(req, who); err != nil {
			t.Fatal(err)
		}
		if err := cfg.On(req, &dev); err != nil {
			t.Fatal(err)
		}
		return cfg.Policy.Decide(req)
	}
	no, unknown, high := access.No, access.Unknown, access.RiskHigh
	for _, test := range []struct {
		dev  access.SomeDevice
		want access.Reason
	}{
		{access.SomeDevice{Like: "healthy"}, access.Allowed},
		{access.SomeDevice{}, access.DeviceMissing},
		{access.SomeDevice{Like: "none"}, access.DeviceMissing},
		{access.SomeDevice{Like: "unknown"}, access.DeviceUnknown},
		{access.SomeDevice{Like: "silent"}, access.DeviceFactsTooOld},
		{access.SomeDevice{Like: "enrolled"}, access.DeviceFactMissing},
		{access.SomeDevice{Like: "managed"}, access.DeviceFactMissing},
		{access.SomeDevice{Like: "healthy", DiskEncrypted: &no}, access.DeviceNotEncrypted},
		{access.SomeDevice{Like: "healthy", Risk: &high}, access.DeviceAtRisk},
		{access.SomeDevice{Like: "healthy", Compliant: &unknown}, access.DeviceFactMissing},
		{access.SomeDevice{Like: "healthy", OS: "macos", OSVersion: "14.0"}, access.DeviceOSTooOld},
		{access.SomeDevice{Like: "healthy", Seen: access.Duration(13 * time.Hour)}, access.DeviceFactsTooOld},
	} {
		if d := decide(test.dev); d.Reason != test.want {
			t.Errorf("%+v: %s, want %s", test.dev, d.Reason, test.want)
		}
	}
	if err := cfg.On(&access.Request{Time: noon}, &access.SomeDevice{Like: "helthy"}); err == nil {
		t.Error("a device like a profile that does not exist")
	}
	path := filepath.Join(t.TempDir(), "device.yaml")
	write(t, path, "helthy")
	if _, err := cfg.ReadDevice(path); err == nil || !strings.Contains(err.Error(), "did you mean healthy?") {
		t.Error(err)
	}
	write(t, path, "{like: helthy, managed: yes}")
	if _, err := cfg.ReadDevice(path); err == nil || !strings.Contains(err.Error(), "did you mean healthy?") {
		t.Error(err)
	}
	write(t, path, "{like: none, managed: yes}")
	if _, err := cfg.ReadDevice(path); err == nil || !strings.Contains(err.Error(), "has no facts") {
		t.Error(err)
	}
}
