package devicecheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

var updateGolden = flag.Bool("update", false, "write the golden files of vendors' answers")

// vendor is a server that speaks for every kind of inventory, as truthfully as
// its script says.
type vendor struct {
	*httptest.Server
	t *testing.T
	// one holds the requests apart: net/http repeats one whose connection broke
	// while the handler of the first may still be ending.
	one sync.Mutex
	// answer is asked for every page; tokens are answered apart.
	answer func(w http.ResponseWriter, r *http.Request)
	tokens int
	asked  []string
	slept  []time.Duration
	now    time.Time
}

func newVendor(t *testing.T) *vendor {
	v := &vendor{t: t, now: noon}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.one.Lock()
		defer v.one.Unlock()
		if strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token") {
			v.token(w, r)
			return
		}
		v.asked = append(v.asked, r.URL.RequestURI())
		v.answer(w, r)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *vendor) token(w http.ResponseWriter, r *http.Request) {
	v.tokens++
	if r.Method != http.MethodPost || r.URL.Path != "/contoso/oauth2/v2.0/token" || r.FormValue("grant_type") != "client_credentials" ||
		r.FormValue("client_id") != "0c1d" || r.FormValue("client_secret") != "s3cret" || r.FormValue("scope") != v.URL+"/.default" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"token-%d"}`, v.tokens)
}

func (v *vendor) outside() outside {
	return outside{
		now: func() time.Time { return v.now }, rand: func() float64 { return 0.5 },
		sleep: func(_ context.Context, d time.Duration) error { v.slept = append(v.slept, d); return nil },
	}.orReal()
}

func (v *vendor) source(kind string) Source {
	s := Source{ID: "corp", Type: kind, URL: v.URL}
	switch kind {
	case "http":
		s.URL += "/devices"
		s.Items, s.Next = "data.devices", `paging.@odata\.next`
		s.Headers = map[string]access.Secret{"Authorization": access.NewSecret("Bearer t0ken")}
		s.Fields = map[string]Field{
			"id": {Path: "udid"}, "name": {Path: "label"}, "owner": {Path: "person.mail"}, "serial": {Path: "cert.sn"},
			"compliant":      {Path: "compliance.state", Yes: []string{"OK"}, No: []string{"BAD"}},
			"disk_encrypted": {Path: "fv"}, "jailbroken": {Path: "root", Yes: []string{"1"}, No: []string{"0"}},
			"os": {Path: "system"}, "os_version": {Path: "version"}, "last_seen": {Path: "contact"}, "reasons": {Path: "compliance.why"},
			"risk": {Path: "threat", Levels: map[string][]string{"none": {"0"}, "low": {"1", "2"}, "medium": {"3"}, "high": {"red"}}},
		}
	case "fleet":
		s.Token = access.NewSecret("t0ken")
	case "intune":
		s.AuthURL, s.Tenant, s.ClientID, s.ClientSecret = v.URL, "contoso", "0c1d", access.NewSecret("s3cret")
	}
	return s
}

func (v *vendor) fetcher(kind string) fetcher {
	s := v.source(kind)
	faults := access.NewFaults("")
	s.validate(faults)
	f, err := newFetcher(s, v.outside())
	if err != nil || len(faults.List()) > 0 {
		v.t.Fatal(err, faults.List())
	}
	return f
}

// pages serves each kind's way of paging over the records.
func (v *vendor) page(kind string, w http.ResponseWriter, r *http.Request, pages ...string) {
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	records, next := "", "null"
	if n < len(pages) {
		records = pages[n]
	}
	if n+1 < len(pages) {
		next = strconv.Quote(fmt.Sprintf("%s%s?page=%d", v.URL, r.URL.Path, n+1))
	}
	switch kind {
	case "http":
		fmt.Fprintf(w, `{"data":{"devices":[%s]},"paging":{"@odata.next":%s}}`, records, next)
	case "fleet":
		fmt.Fprintf(w, `{"hosts":[%s]}`, records)
	case "intune":
		fmt.Fprintf(w, `{"@odata.nextLink":%s,"value":[%s]}`, next, records)
	}
}

var vendorKinds = []string{"http", "fleet", "intune"}

// record is one compliant device in the words of each vendor.
func record(kind, id string) string {
	switch kind {
	case "http":
		return fmt.Sprintf(`{"udid":%q,"compliance":{"state":"OK"}}`, id)
	case "fleet":
		return fmt.Sprintf(`{"uuid":%q,"policies":[{"name":"p","response":"pass"}]}`, id)
	default:
		return fmt.Sprintf(`{"id":%q,"azureADDeviceId":%q,"complianceState":"compliant"}`, id, id)
	}
}

func TestVendorAnswersBecomeTheNormalForm(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "vendor", kind+".json"))
			if err != nil {
				t.Fatal(err)
			}
			v := newVendor(t)
			v.answer = func(w http.ResponseWriter, r *http.Request) {
				want := map[string]string{"http": "Bearer t0ken", "fleet": "Bearer t0ken", "intune": "Bearer token-1"}[kind]
				if got := r.Header.Get("Authorization"); got != want {
					t.Errorf("authorized by %q", got)
				}
				if n := r.URL.Query().Get("page"); n != "" && n != "0" {
					v.page(kind, w, r)
					return
				}
				w.Write(text)
			}
			f := v.fetcher(kind)
			inv, err := f.fetch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := f.fetch(t.Context(), inv); again != inv || err != nil {
				t.Errorf("the same answer again is another inventory: %v", err)
			}
			checkInventory(t, inv)
			got, err := json.MarshalIndent(inv.devices, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "vendor", kind+".golden")
			if *updateGolden {
				write(t, golden, string(got)+"\n")
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != string(got)+"\n" {
				t.Errorf("%v; got\n%s", err, got)
			}
		})
	}
}

func TestVendorPagesThrottlesAndDrops(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t)
			pages := []string{record(kind, "a") + "," + record(kind, "b"), record(kind, "c"), record(kind, "d")}
			times := 0
			v.answer = func(w http.ResponseWriter, r *http.Request) {
				switch times++; times {
				case 2:
					w.Header().Set("Retry-After", "7")
					w.WriteHeader(http.StatusTooManyRequests)
				case 3:
					w.Header().Set("Retry-After", noon.Add(9*time.Second).Format(http.TimeFormat))
					w.WriteHeader(http.StatusServiceUnavailable)
				case 4:
					panic(http.ErrAbortHandler)
				case 5: // half an answer
					w.Header().Set("Content-Length", "1000")
					fmt.Fprint(w, `{"data":`)
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				default:
					v.page(kind, w, r, pages...)
				}
			}
			inv, err := v.fetcher(kind).fetch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"a", "b", "c", "d"} {
				if d := inv.find(idKey, id); d == nil || d.Compliant != access.Yes {
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

// Whatever a hostile or broken server says, the last good inventory stays.
func TestVendorLies(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another host was asked, with %v", r.Header)
	}))
	defer elsewhere.Close()
	lies := map[string]struct {
		kinds  string
		answer func(v *vendor, kind string, w http.ResponseWriter, r *http.Request)
		err    string
	}{
		"cut off": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"data":{"devices":[{"ud`)
		}, "too early"},
		"a page":   {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "invalid character"},
		"nothing":  {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {}, "too early"},
		"no array": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"error":"x"}`) }, "has no array"},
		"null": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"hosts":null,"value":null}`)
		}, "has no array"},
		"not UTF-8":   {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{\"a\":\"\xff\"}") }, "UTF-8"},
		"forbidden":   {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "answered 403"},
		"broken":      {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "answered 500"},
		"refused":     {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "answered 401"},
		"always busy": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, "answered 429"},
		"a dead line": {"", func(*vendor, string, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"half an answer": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"hosts":[]}`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "breaks off"},
		"a redirect": {"", func(_ *vendor, _ string, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "another place"},
		"deep": {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat("[", 5000))
		}, "nested"},
		"two members":  {"", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"a":1,"a":2}`) }, "twice"},
		"a bad record": {"", func(v *vendor, kind string, w http.ResponseWriter, r *http.Request) { v.page(kind, w, r, "7") }, "no object"},
		"no id":        {"", func(v *vendor, kind string, w http.ResponseWriter, r *http.Request) { v.page(kind, w, r, "{}") }, "has no text"},
		"more after": {"", func(v *vendor, kind string, w http.ResponseWriter, r *http.Request) {
			v.page(kind, w, r, record(kind, "x"))
			fmt.Fprint(w, "{}")
		}, "more after the end"},
		"a second page that fails": {"", func(v *vendor, kind string, w http.ResponseWriter, r *http.Request) {
			if n := r.URL.Query().Get("page"); n != "" && n != "0" {
				w.WriteHeader(500)
				return
			}
			v.page(kind, w, r, record(kind, "x"), record(kind, "y"))
		}, "answered 500"},
		"a circle": {"http intune", func(v *vendor, kind string, w http.ResponseWriter, r *http.Request) {
			next := v.URL + r.URL.Path + "?page=1"
			fmt.Fprintf(w, `{"data":{"devices":[]},"value":[],"paging":{"@odata.next":%q},"@odata.nextLink":%q}`, next, next)
		}, "circle"},
		"a page elsewhere": {"http intune", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"data":{"devices":[]},"value":[],"paging":{"@odata.next":%q},"@odata.nextLink":%q}`, elsewhere.URL, elsewhere.URL)
		}, "not on"},
		"the same hosts for ever": {"fleet", func(_ *vendor, _ string, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"hosts":[%s]}`, record("fleet", "x"))
		}, "same hosts"},
	}
	for name, lie := range lies {
		for _, kind := range vendorKinds {
			if lie.kinds != "" && !strings.Contains(lie.kinds, kind) {
				continue
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				v := newVendor(t)
				v.answer = func(w http.ResponseWriter, r *http.Request) { v.page(kind, w, r, record(kind, "good")) }
				s := &source{Source: v.source(kind), fetcher: v.fetcher(kind), now: v.outside().now, log: slog.New(slog.DiscardHandler)}
				s.start(nil)
				good := s.state.Load()
				if good.failing() || good.size() != 1 {
					t.Fatalf("%+v", good)
				}
				v.answer = func(w http.ResponseWriter, r *http.Request) { lie.answer(v, kind, w, r) }
				s.load(t.Context())
				now := s.state.Load()
				if now.inv != good.inv || !now.failing() || !strings.Contains(now.err, lie.err) {
					t.Errorf("%+v", now)
				}
				if strings.Contains(now.err, "t0ken") || strings.Contains(now.err, "s3cret") {
					t.Errorf("the error holds a secret: %s", now.err)
				}
			})
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	v := newVendor(t)
	v.answer = func(w http.ResponseWriter, r *http.Request) {
		filler := bytes.Repeat([]byte(" "), 1<<20)
		for range maxPull>>20 + 1 {
			w.Write(filler)
		}
	}
	if _, err := v.fetcher("http").fetch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Error(err)
	}
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
	v := newVendor(t)
	v.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "99999999999")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	f := v.fetcher("http")
	for range 3 {
		if _, err := f.fetch(t.Context(), nil); err == nil {
			t.Error("no error")
		}
	}
	if len(v.asked) != 1 || len(v.slept) != 0 {
		t.Errorf("asked %v, slept %v", v.asked, v.slept)
	}
	v.now = v.now.Add(maxPause)
	_, _ = f.fetch(t.Context(), nil)
	if len(v.asked) != 2 {
		t.Errorf("asked %v", v.asked)
	}
}

func TestIntuneRenewsItsToken(t *testing.T) {
	v := newVendor(t)
	good := "Bearer token-2"
	v.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != good {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		v.page("intune", w, r, record("intune", "a"), record("intune", "b"))
	}
	f := v.fetcher("intune")
	if _, err := f.fetch(t.Context(), nil); err != nil || v.tokens != 2 {
		t.Fatal(err, v.tokens)
	}
	v.now = v.now.Add(time.Hour - tokenMargin) // expires
	good = "Bearer token-3"
	if _, err := f.fetch(t.Context(), nil); err != nil || v.tokens != 3 {
		t.Fatal(err, v.tokens)
	}
	good = "Bearer none" // one renewal, no more
	if _, err := f.fetch(t.Context(), nil); !errors.Is(err, errUnauthorized) || v.tokens != 4 {
		t.Fatal(err, v.tokens)
	}
}

func TestValidateReportsEveryFaultOfRemoteSources(t *testing.T) {
	secret := access.NewSecret("two\nlines")
	f := access.NewFaults("")
	for n, s := range []Source{
		{ID: "a", Type: "http"},
		{
			ID: "b", Type: "http", URL: "http://inventory.example", Items: "a..b", Next: `a\b`, Refresh: access.Duration(time.Second), Path: "/x", Token: secret,
			Headers: map[string]access.Secret{"a b": secret, "Host": secret, "X-Key": secret},
			Fields: map[string]Field{
				"color": {Path: "c"}, "compliant": {Path: "c", Yes: []string{"a", ""}, No: []string{"a", ""}},
				"id": {}, "name": {Path: "n", Yes: []string{"x"}}, "owner": {Path: "o", Levels: map[string][]string{"low": {"x"}}},
				"risk": {Path: "r", Levels: map[string][]string{"low": {"x", ""}, "medium": {"x"}, "unknown": {"y"}}},
			},
		},
		{ID: "c", Type: "fleet", Key: "id", Tenant: "x", Items: "x"},
		{ID: "d", Type: "fleet", URL: "https://user:pass@fleet.example", Token: secret},
		{ID: "e", Type: "intune", Tenant: "a/b", URL: "ftp://x", AuthURL: "x", Key: "uuid"},
		{ID: "f", Type: "intune", Tenant: "..", ClientID: "x", ClientSecret: secret},
	} {
		s.validate(f.At("%d", n))
	}
	var got []string
	for _, fault := range f.List() {
		if fault.Cure == "" || strings.Contains(fault.Text, "lines\n") || strings.Contains(fault.Text, "pass@") {
			t.Errorf("%+v", fault)
		}
		got = append(got, fault.Path)
	}
	want := "0.url 0.fields " +
		"1.refresh 1.url 1.items 1.next 1.headers.Host 1.headers.X-Key 1.headers.a b 1.fields.color 1.fields.compliant.yes 1.fields.compliant.yes 1.fields.compliant.no 1.fields.id 1.fields.name 1.fields.owner.levels 1.fields.risk.levels.low 1.fields.risk.levels.medium 1.fields.risk.levels.unknown 1.path 1.token " +
		"2.url 2.token 2.key 2.items 2.tenant 3.url 3.token 4.url 4.auth_url 4.tenant 4.client_id 4.client_secret 4.key 5.tenant"
	if strings.Join(got, " ") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, " "), want)
	}
}

// Two records of one id: only what both say counts.
func TestRecordsOfOneIDMustAgree(t *testing.T) {
	v := newVendor(t)
	v.answer = func(w http.ResponseWriter, r *http.Request) {
		v.page("intune", w, r, `{"id":"1","azureADDeviceId":"a","complianceState":"compliant","isEncrypted":true,"userPrincipalName":"x","lastSyncDateTime":"2026-11-23T10:00:00Z"}`,
			`{"id":"2","azureADDeviceId":"a","complianceState":"noncompliant","isEncrypted":true,"userPrincipalName":"y","lastSyncDateTime":"2026-11-20T10:00:00Z"}`)
	}
	inv, err := v.fetcher("intune").fetch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := inv.find(idKey, "a")
	if len(inv.devices) != 1 || d.Compliant != access.Unknown || d.DiskEncrypted != access.Yes || d.Owner != "" || d.SeenAt.Day() != 20 {
		t.Errorf("%+v", d)
	}
}

// A device that turns bad is bad after the next reading, and a reload of the
// configuration while the vendor is down keeps the last good facts.
func TestVendorChangesItsMind(t *testing.T) {
	v := newVendor(t)
	state := "OK"
	v.answer = func(w http.ResponseWriter, r *http.Request) {
		if state == "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		v.page("http", w, r, fmt.Sprintf(`{"udid":"a","compliance":{"state":%q}}`, state))
	}
	opts := Options{Config: Config{Sources: []Source{v.source("http")}, Match: []string{"claim.id"}}}
	i := newInspector(t, opts)
	if d := known(t, i, "a"); d.Compliant != access.Yes || d.Source != "corp" {
		t.Errorf("%+v", d)
	}
	state = "BAD"
	i.sources[0].load(t.Context())
	if d := known(t, i, "a"); d.Compliant != access.No {
		t.Errorf("%+v", d)
	}
	state = ""
	i.sources[0].load(t.Context())
	opts.Config.Sources = []Source{v.source("http")} // its equal
	opts.Previous = i
	if d := known(t, newInspector(t, opts), "a"); d.Compliant != access.No || !d.SourceFailingSince.Equal(noon) {
		t.Errorf("%+v", d)
	}
}

func TestSourcesAreComparedByValue(t *testing.T) {
	v := newVendor(t)
	for _, kind := range vendorKinds {
		if !v.source(kind).same(v.source(kind)) {
			t.Errorf("%s is not the same as its equal", kind)
		}
	}
	a, b := v.source("http"), v.source("http")
	b.Headers["Authorization"] = access.NewSecret("another")
	if a.same(b) {
		t.Error("another secret is the same")
	}
}

// Nothing missing and nothing unknown ever becomes compliant: a device is
// compliant only where its record says so in the vendor's own word.
func TestOnlyTheVendorsWordIsCompliant(t *testing.T) {
	v := newVendor(t)
	h, fl, in := v.fetcher("http").(*httpInventory), v.fetcher("fleet").(*fleetServer), v.fetcher("intune").(*intune)
	words := []any{nil, "", "compliant", "Compliant", "COMPLIANT", "OK", "ok", "pass", "PASS", "fail", "unknown", "error", "true", true, false,
		json.Number("0"), json.Number("1"), []any{"compliant"}, []any{}, map[string]any{}}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom(words)
		record := map[string]any{"udid": "x", "uuid": "x", "id": "x", "azureADDeviceId": "x"}
		put := func(to map[string]any, name string, value any) {
			if rapid.Bool().Draw(t, "there") {
				to[name] = value
			}
		}
		state, threat := word.Draw(t, "state"), word.Draw(t, "threat")
		put(record, "complianceState", state)
		put(record, "partnerReportedThreatState", threat)
		inner := map[string]any{}
		put(inner, "state", word.Draw(t, "inner"))
		put(record, "compliance", rapid.SampledFrom([]any{inner, nil, "OK", true}).Draw(t, "compliance"))
		var policies []any
		for range rapid.IntRange(0, 3).Draw(t, "policies") {
			p := map[string]any{}
			put(p, "response", word.Draw(t, "response"))
			policies = append(policies, rapid.SampledFrom([]any{p, p, p, nil, "pass"}).Draw(t, "policy"))
		}
		put(record, "policies", policies)
		put(record, "issues", map[string]any{"failing_policies_count": word.Draw(t, "failing")})

		passed := len(policies) > 0 && record["policies"] != nil
		for _, p := range policies {
			one, _ := p.(map[string]any)
			passed = passed && one["response"] == "pass"
		}
		compliance, _ := record["compliance"].(map[string]any)
		for kind, c := range map[string]struct {
			read func() (access.Device, error)
			may  bool
		}{
			"http":   {func() (access.Device, error) { return h.device(record) }, compliance["state"] == "OK"},
			"fleet":  {func() (access.Device, error) { return fl.device(record) }, passed},
			"intune": {func() (access.Device, error) { return in.device(record) }, record["complianceState"] == "compliant"},
		} {
			d, err := c.read()
			if err == nil && d.Compliant == access.Yes && !c.may {
				t.Fatalf("%s: %v is compliant", kind, record)
			}
		}
	})
}

func FuzzPage(f *testing.F) {
	for _, kind := range vendorKinds {
		text, err := os.ReadFile(filepath.Join("testdata", "vendor", kind+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "value")
	}
	f.Fuzz(func(t *testing.T, text []byte, items string) {
		path, err := parsePath(items)
		if err != nil {
			return
		}
		if _, err := readPage(text, path, func(map[string]any) error { return nil }); err == nil && !json.Valid(text) {
			t.Fatalf("accepted what is no JSON: %q", text)
		}
	})
}
