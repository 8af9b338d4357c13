package devicecheck

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

func TestVendorsPageThrottleAndDrop(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t, kind)
			ids := []string{"a", "b", "c", "d", "e"}
			var devices []access.Device
			for _, id := range ids {
				devices = append(devices, healthy(id))
			}
			v.Set(devices...)
			v.Once(nil, testidp.Throttles(http.StatusTooManyRequests, "7"),
				testidp.Throttles(http.StatusServiceUnavailable, noon.Add(9*time.Second).Format(http.TimeFormat)),
				testidp.HangsUp(), testidp.BreaksOff())
			inv, err := v.fetcher().fetch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if d := inv.find(idKey, id); !v.praised(d) {
					t.Errorf("%s: %+v", id, d)
				}
			}
			// The connection dropped before an answer is net/http's to repeat.
			want := []time.Duration{7500 * time.Millisecond, 9500 * time.Millisecond, 4 * time.Second}
			if fmt.Sprint(v.slept) != fmt.Sprint(want) {
				t.Errorf("slept %v", v.slept)
			}
		})
	}
}

// Whatever a hostile or broken server says, the last good inventory stays, and
// no secret gets into an error or a log.
func TestVendorLies(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another host was asked, with %v", r.Header)
	}))
	defer elsewhere.Close()
	same := func(m testidp.Misbehaviour) func(*vendor) testidp.Misbehaviour {
		return func(*vendor) testidp.Misbehaviour { return m }
	}
	says := func(body string) func(*vendor) testidp.Misbehaviour {
		return same(testidp.Says(testidp.Answer{Body: body}))
	}
	status := func(code int) func(*vendor) testidp.Misbehaviour { return same(testidp.Throttles(code, "")) }
	changed := func(change func(body string) string) func(*vendor) testidp.Misbehaviour {
		return same(testidp.Lies(func(body []byte) []byte { return []byte(change(strings.TrimSpace(string(body)))) }))
	}
	next := func(to func(v *vendor) any) func(*vendor) testidp.Misbehaviour {
		return func(v *vendor) testidp.Misbehaviour { return v.Next(func() any { return to(v) }) }
	}
	const (
		linked = "http intune entra defender"
		tokens = "google crowdstrike"
	)
	calls := 0
	lies := map[string]struct {
		kinds string // "" for all
		lie   func(v *vendor) testidp.Misbehaviour
		err   string // or another one, with | between them
	}{
		"cut off":        {"", changed(func(body string) string { return body[:len(body)/2] }), "ends too early"},
		"a page":         {"", same(testidp.Says(testidp.NotJSON())), "invalid character"},
		"nothing":        {"", says(""), "too early"},
		"a bare null":    {"", says("null"), "has no array"},
		"no array":       {"", says(`{"error":"x"}`), "has no array"},
		"null for it":    {"", says(`{"hosts":null,"value":null,"results":null,"resources":null,"devices":null}`), "has no array"},
		"an object":      {"", says(`{"hosts":{},"value":{},"results":{},"resources":{},"devices":{},"data":{"devices":{}}}`), "has no array"},
		"not UTF-8":      {"", says("{\"a\":\"\xff\"}"), "UTF-8"},
		"forbidden":      {"", status(http.StatusForbidden), "answered 403"},
		"broken":         {"", status(http.StatusInternalServerError), "answered 500"},
		"created":        {"", status(http.StatusCreated), "answered 201"},
		"refused":        {"", status(http.StatusUnauthorized), "answered 401"},
		"always busy":    {"", status(http.StatusTooManyRequests), "answered 429"},
		"a dead line":    {"", same(testidp.HangsUp()), "EOF"},
		"half an answer": {"", same(testidp.BreaksOff()), "breaks off"},
		"a redirect":     {"", same(testidp.Redirects(elsewhere.URL)), "another place"},
		"deep":           {"", says(strings.Repeat("[", 5000)), "nested"},
		"huge":           {"jamf", same(testidp.Says(testidp.Huge())), "larger than 64 MiB"}, // one reader has the limit of all
		"two members":    {"", changed(func(body string) string { return `{"twice":1,"twice":2,` + body[1:] }), "twice"},
		"more after":     {"", changed(func(body string) string { return body + "{}" }), "more after the end"},
		"numbers for records": {"", same(testidp.LiesAbout(func(answer map[string]any) {
			replaceRecords(answer, 7)
		})), "no object"},
		"records without an id": {"", same(testidp.LiesAbout(func(answer map[string]any) {
			replaceRecords(answer, map[string]any{})
		})), `no text|no "name"|no agent`},
		"a circle":            {linked, next(func(v *vendor) any { return v.url + v.lastAsked(1) }), "circle"},
		"a circle of tokens":  {tokens, next(func(*vendor) any { return "2" }), "circle"},
		"tokens without end":  {tokens, next(func(*vendor) any { calls++; return strconv.Itoa(1000 + calls) }), "pages in a row are empty"},
		"a page elsewhere":    {linked, next(func(*vendor) any { return elsewhere.URL }), "not on"},
		"a page of somebody":  {linked, next(func(v *vendor) any { return strings.Replace(v.url, "http://", "http://user@", 1) }), "not on"},
		"a link that is none": {linked + " " + tokens, next(func(*vendor) any { return 7 }), "no text"},
		"links without end": {linked, func(v *vendor) testidp.Misbehaviour {
			return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
				calls++
				link := v.url + "/x?page=" + strconv.Itoa(calls)
				fmt.Fprintf(w, `{"value":[],"data":{"devices":[]},"@odata.nextLink":%q,"paging":{"@odata.next":%q}}`, link, link)
			}
		}, "pages in a row are empty"},
		"the same for ever": {"fleet jamf", same(func(w http.ResponseWriter, r *http.Request, honest http.HandlerFunc) {
			first := r.Clone(r.Context())
			first.URL.RawQuery = ""
			honest(w, first)
		}), "same records"},
		"a wrong count": {"jamf crowdstrike", same(testidp.LiesAbout(func(answer map[string]any) {
			answer["totalCount"], answer["meta"] = 300, map[string]any{"pagination": map[string]any{"total": 300}}
		})), "counts 300"},
	}
	for name, lie := range lies {
		for _, kind := range vendorKinds {
			if lie.kinds != "" && !slices.Contains(strings.Fields(lie.kinds), kind) {
				continue
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				v := newVendor(t, kind)
				v.Set(healthy("good"))
				s := v.watched()
				good := s.state.Load()
				v.Always(lie.lie(v))
				s.load(t.Context())
				now := s.state.Load()
				told := slices.ContainsFunc(strings.Split(lie.err, "|"), func(text string) bool { return strings.Contains(now.err, text) })
				if now.inv != good.inv || !now.failing() || !told {
					t.Errorf("%+v", now)
				}
				for _, secret := range []string{testidp.InventoryAPIToken, testidp.InventorySecret, "token-", "PRIVATE"} {
					if strings.Contains(now.err+v.log.String(), secret) {
						t.Errorf("the error or the log holds a secret: %s\n%s", now.err, v.log.String())
					}
				}
				v.Always(nil)
				v.Advance(2 * time.Hour) // whatever patience was asked for
				if s.load(t.Context()); s.state.Load().failing() {
					t.Errorf("it cannot be read again: %+v", s.state.Load())
				}
			})
		}
	}
}

// replaceRecords puts one value in the place of every record of an answer.
func replaceRecords(answer map[string]any, record any) {
	for name, value := range answer {
		switch v := value.(type) {
		case []any:
			answer[name] = []any{record}
		case map[string]any:
			if name == "data" {
				replaceRecords(v, record)
			}
		}
	}
}

// A second page that fails takes the first one with it.
func TestHalfAnInventoryIsNone(t *testing.T) {
	for _, kind := range vendorKinds {
		v := newVendor(t, kind)
		v.Set(healthy("a"), healthy("b"), healthy("c"))
		s := v.watched()
		good := s.state.Load()
		v.Set(healthy("x"), healthy("y"), healthy("z"))
		v.Once(nil, testidp.Throttles(http.StatusInternalServerError, ""))
		s.load(t.Context())
		if now := s.state.Load(); now.inv != good.inv || !strings.Contains(now.err, "answered 500") {
			t.Errorf("%s: %+v", kind, now)
		}
		if s.load(t.Context()); s.state.Load().inv.find(idKey, "z") == nil || s.state.Load().inv.find(idKey, "a") != nil {
			t.Errorf("%s: %+v", kind, s.state.Load())
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	v := newVendor(t, "http")
	p, err := (&remote{outside: v.outside()}).begin()
	for n := 0; err == nil && n <= maxRecords; n++ {
		err = p.add(access.Device{ID: strconv.Itoa(n)})
	}
	if err == nil || len(p.devices) != maxRecords {
		t.Error(len(p.devices), err)
	}
}

// A server that asks for much patience gets it.
func TestLongRetryAfterLeavesTheServerAlone(t *testing.T) {
	for _, kind := range vendorKinds {
		v := newVendor(t, kind)
		v.Always(testidp.Throttles(http.StatusTooManyRequests, "99999999999"))
		f := v.fetcher()
		for range 3 {
			if _, err := f.fetch(t.Context(), nil); err == nil {
				t.Error("no error")
			}
		}
		if len(v.Requests()) != 1 || len(v.slept) != 0 {
			t.Errorf("%s: asked %v, slept %v", kind, v.Requests(), v.slept)
		}
		v.Advance(maxPause)
		_, _ = f.fetch(t.Context(), nil)
		if len(v.Requests()) != 2 {
			t.Errorf("%s: asked %v", kind, v.Requests())
		}
	}
}

// Two records of one id: only what both say counts.
func TestRecordsOfOneIDMustAgree(t *testing.T) {
	v := newVendor(t, "intune")
	v.SetRecords("/v1.0/deviceManagement/managedDevices",
		`{"id":"1","azureADDeviceId":"a","complianceState":"compliant","isEncrypted":true,"userPrincipalName":"x","lastSyncDateTime":"2026-11-23T10:00:00Z","partnerReportedThreatState":"secured"}`,
		`{"id":"2","azureADDeviceId":"a","complianceState":"noncompliant","isEncrypted":true,"userPrincipalName":"y","lastSyncDateTime":"2026-11-20T10:00:00Z","partnerReportedThreatState":"lowSeverity"}`)
	inv, err := v.fetcher().fetch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := inv.find(idKey, "a")
	if len(inv.devices) != 1 || d.Compliant != access.Unknown || d.DiskEncrypted != access.Yes || d.Owner != "" || d.SeenAt.Day() != 20 || d.Risk != access.RiskLow {
		t.Errorf("%+v", d)
	}
}

// A device that turns bad, or goes, is so after the next reading; a reload of
// the configuration while the vendor is down keeps the last good facts.
func TestVendorChangesItsMind(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t, kind)
			a, b := healthy("a"), healthy("b")
			v.Set(a, b)
			opts := Options{Config: Config{Sources: []Source{v.source()}, Match: []string{"claim.id"}}, Now: v.Now}
			i := newInspector(t, opts)
			if d := known(t, i, "a"); !v.praised(&d) || d.Source != "corp" {
				t.Errorf("%+v", d)
			}
			a.Compliant, a.Risk = access.No, access.RiskHigh
			v.Set(a)
			i.sources[0].load(t.Context())
			if d := known(t, i, "a"); v.praised(&d) || d.Compliant == access.Yes {
				t.Errorf("%+v", d)
			}
			if d := known(t, i, "b"); d.Known != access.No {
				t.Errorf("a device that is gone: %+v", d)
			}
			v.Always(testidp.Throttles(http.StatusInternalServerError, ""))
			i.sources[0].load(t.Context())
			opts.Config.Sources = []Source{v.source()} // its equal
			opts.Previous = i
			if d := known(t, newInspector(t, opts), "a"); v.praised(&d) || d.Known != access.Yes || !d.SourceFailingSince.Equal(noon) {
				t.Errorf("%+v", d)
			}
		})
	}
}

// A token that is refused, or expires, is renewed once.
func TestTokensAreRenewedOnce(t *testing.T) {
	for _, kind := range vendorKinds {
		if kind == "http" || kind == "fleet" {
			continue // which have none
		}
		v := newVendor(t, kind)
		v.Set(healthy("a"), healthy("b"), healthy("c"))
		f := v.fetcher()
		read := func(tokens int) {
			t.Helper()
			if inv, err := f.fetch(t.Context(), nil); err != nil || len(inv.devices) != 3 || v.Tokens() != tokens {
				t.Fatalf("%s: %v, %d tokens, want %d", kind, err, v.Tokens(), tokens)
			}
		}
		read(1)
		v.Advance(30 * time.Minute)
		read(1)
		v.Revoke()
		read(2)
		v.Advance(time.Hour - tokenMargin) // ahead of its end
		read(3)
		v.Once(nil, func(w http.ResponseWriter, r *http.Request, honest http.HandlerFunc) {
			v.Revoke() // in the middle of the pages
			honest(w, r)
		})
		read(4)
		v.Always(testidp.Throttles(http.StatusUnauthorized, ""))
		if _, err := f.fetch(t.Context(), nil); !errors.Is(err, errUnauthorized) || v.Tokens() != 5 {
			t.Fatalf("%s: %v, %d tokens", kind, err, v.Tokens())
		}
	}
}

// Who asks with the wrong credentials reads nothing, and the error says why
// without repeating them.
func TestWrongCredentialsReadNothing(t *testing.T) {
	for _, kind := range vendorKinds {
		v := newVendor(t, kind)
		v.Set(healthy("a"))
		s := v.source()
		wrong := access.NewSecret("wr0ng")
		switch kind {
		case "http":
			s.Headers = map[string]access.Secret{"Authorization": wrong}
		case "fleet":
			s.Token = wrong
		case "google":
			another := strings.Replace(s.ServiceAccount.Reveal(), `"client_email":"`, `"client_email":"wr0ng-`, 1)
			s.ServiceAccount = access.NewSecret(another)
		default:
			s.ClientSecret = wrong
		}
		_, err := v.open(s).fetch(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error()+v.log.String(), "wr0ng") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
