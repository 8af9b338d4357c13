package authz

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestExplain(t *testing.T) {
	p := compile(t, billing())
	tests := []struct {
		name   string
		change func(*access.Request)
		want   string // the whole text
	}{
		{"allow", func(*access.Request) {}, `
ALLOW  allowed: Allowed
  request  GET https://billing.example.com/invoices/7
  user     corp:alice
  route    billing
  rule     allow/engineers-read
  policy   v1

public/health  miss
  methods      hit      want GET, got GET
  paths        miss     want /health, got /invoices/7

deny/no-deletes-from-abroad  miss
  methods      miss     want DELETE, got GET
  networks     miss     want 203.0.113.0/24, got 10.1.2.3

deny/no-secrets  miss  (only reports)
  paths        miss     want /secrets/**, got /invoices/7

allow/engineers-read  hit
  groups       hit      want engineers, got all, eng
  methods      hit      want GET or HEAD, got GET
  paths        hit      want /**, got /invoices/7

allow/oncall  miss
  groups       miss     want oncall, got all, eng
  time         hit      want mon-fri 08:00-18:00 Europe/Berlin, got Wed 14:00

routes[0].rules[0].require  does not apply
routes[0].require  met  (device healthy)
defaults.require  met  (device managed)
`},
		{"challenge", func(r *access.Request) { r.Device.OSVersion, r.Identity.Login.ACR = "15.4", "" }, `
CHALLENGE  device_os_too_old: The operating system is too old
  request  GET https://billing.example.com/invoices/7
…
routes[0].require  not met  (device healthy)
  device_os_too_old miss     want 15.5, got 15.4
  acr_insufficient miss     want phr, got none
defaults.require  met  (device managed)

smallest change that would allow it:
  - for device profile healthy: device_os_too_old want 15.5, got 15.4
  - acr_insufficient want phr, got none
`},
		{"deny", func(r *access.Request) {
			r.Identity.Groups, r.Method, r.Network.IP = nil, "DELETE", netip.MustParseAddr("203.0.113.9")
		}, `
DENY  denied_by_rule: This is not permitted
  request  DELETE https://billing.example.com/invoices/7
  user     corp:alice
  route    billing
  rule     deny/no-deletes-from-abroad
  message  Not from there.
…
smallest change that would allow it:
  - for allow/oncall: groups want oncall, got none
  - so that deny/no-deletes-from-abroad misses: networks want anything but 203.0.113.0/24, got 203.0.113.9, for example 192.0.2.1
`},
		{"nobody", func(r *access.Request) { r.Identity = access.Identity{} }, `
CHALLENGE  login_required: Please log in
  request  GET https://billing.example.com/invoices/7
  user     nobody
…
smallest change that would allow it:
  - log in with acr phr, at most 15m ago
  - for allow/engineers-read: groups want engineers, got none
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := with(tt.change)
			d, tree := p.Explain(req)
			if want := p.Decide(req); !reflect.DeepEqual(d, want) || !reflect.DeepEqual(tree.Decision, want) {
				t.Errorf("Explain decides %+v, Decide %+v", d, want)
			}
			var b strings.Builder
			if err := tree.WriteText(&b, false); err != nil {
				t.Fatal(err)
			}
			head, tail, _ := strings.Cut(strings.TrimPrefix(tt.want, "\n"), "…\n")
			if got := b.String(); !strings.HasPrefix(got, head) || !strings.HasSuffix(got, tail) || tail == "" && got != head {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

func TestExplainWithoutRoute(t *testing.T) {
	p := compile(t, billing())
	for _, req := range []*access.Request{nil, {}, {Route: "billing", Fault: access.StoreUnavailable}} {
		d, tree := p.Explain(req)
		if d.Outcome != access.Deny || !reflect.DeepEqual(d, p.Decide(req)) || tree == nil {
			t.Errorf("got %+v", d)
		}
	}
}

func TestTreeSurvivesJSON(t *testing.T) {
	_, tree := compile(t, billing()).Explain(with(func(r *access.Request) { r.Identity.Groups, r.Device.Compliant = nil, access.No }))
	data, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	var back Tree
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(&back, tree) {
		t.Errorf("%v\n%s", err, data)
	}
}

// TestTextCannotWriteToTheTerminal: values from the request reach the terminal
// of an operator.
func TestTextCannotWriteToTheTerminal(t *testing.T) {
	_, tree := compile(t, billing()).Explain(with(func(r *access.Request) {
		r.Path, r.Method, r.Identity.Subject, r.Identity.Groups = "/\x1b[2J", "A\rB", "x\u202e\n", []string{"\x1b]0;t\a"}
	}))
	var b strings.Builder
	if err := tree.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\r\a\u202e") {
		t.Errorf("got %q", b.String())
	}
	b.Reset()
	if err := tree.WriteText(&b, true); err != nil || !strings.Contains(b.String(), "\x1b[31mmiss") {
		t.Errorf("no colours: %v", err)
	}
}

// TestReplay decides again on a request read back from its record.
func TestReplay(t *testing.T) {
	in := billing()
	in.Routes[0].Allow[0].Claims = map[string][]string{"level": {"3"}}
	p := compile(t, in)
	req := with(func(r *access.Request) { r.Identity.Claims["level"] = int64(3) })
	data, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var back access.Request
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if a, b := p.Decide(req), p.Decide(&back); a.Outcome != access.Allow || !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\n%+v", a, b)
	}
}
