package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// forms keeps forms in memory.
type forms struct {
	kept map[string]access.Form
	ask  access.LoginRequire
	fail bool
}

const formID = "AAAAAAAAAAAAAAAAAAAAAA"

func (f *forms) Keep(w http.ResponseWriter, _ *http.Request, _ *access.Request, ask access.LoginRequire, _ string, form access.Form) (string, error) {
	if f.fail {
		return "", access.Because(access.StoreUnavailable, errors.New("disk full"))
	}
	http.SetCookie(w, &http.Cookie{Name: "half", Value: "key"})
	f.ask = ask
	if form.Again == "" {
		f.kept[formID] = form
	}
	return "/.doorward/login?return=kept", nil
}

func (f *forms) Release(_ *http.Request, _ *access.Request, id string) (access.Form, error) {
	form, ok := f.kept[id]
	if !ok {
		return form, access.Because(access.FormNotKept, errors.New("gone"))
	}
	delete(f.kept, id)
	return form, nil
}

func formsWorld(t *testing.T, p policy, change func(*Snapshot)) (*world, *forms) {
	f := &forms{kept: map[string]access.Form{}}
	w := loginWorld(t, p, func(w *world) {
		w.snapshot.Forms = f
		if change != nil {
			change(w.snapshot)
		}
	})
	return w, f
}

// post sends a body from a page of the same origin, unless headers say otherwise.
func (w *world) post(body string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest("POST", "http://app.example/orders?x=1", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(browser); i += 2 {
		r.Header.Set(browser[i], browser[i+1])
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Del(headers[i]); headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	res, text := w.do(r)
	res.Request = r
	return res, text
}

func TestFormsOfOurOwnPagesAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		headers []string
		body    string
		limit   int
		kept    bool
	}{
		"form":                 {nil, "a=1&b=2", 0, true},
		"typed again":          {[]string{"Sec-Fetch-Site", "none"}, "a=1", 0, true},
		"upload":               {[]string{"Content-Type", "multipart/form-data; boundary=x"}, "--x\r\n\r\n\r\n--x--", 0, true},
		"largest":              {nil, strings.Repeat("a", 64<<10), 0, true},
		"too large":            {nil, strings.Repeat("a", 64<<10+1), 0, false},
		"larger by config":     {nil, strings.Repeat("a", 64<<10+1), 1 << 17, true},
		"turned off":           {nil, "a=1", -1, false},
		"other site":           {[]string{"Sec-Fetch-Site", "cross-site"}, "a=1", 0, false},
		"neighbour":            {[]string{"Sec-Fetch-Site", "same-site"}, "a=1", 0, false},
		"old browser":          {[]string{"Sec-Fetch-Site", "", "Origin", "http://app.example"}, "a=1", 0, true},
		"old browser, foreign": {[]string{"Sec-Fetch-Site", "", "Origin", "http://evil.example"}, "a=1", 0, false},
		"old browser, null":    {[]string{"Sec-Fetch-Site", "", "Origin", "null"}, "a=1", 0, false},
		"origin unknown":       {[]string{"Sec-Fetch-Site", ""}, "a=1", 0, false},
		"frame":                {[]string{"Sec-Fetch-Dest", "iframe"}, "a=1", 0, false},
		"JSON":                 {[]string{"Content-Type", "application/json"}, "{}", 0, false},
		"text":                 {[]string{"Content-Type", "text/plain"}, "a=1", 0, false},
		"no boundary":          {[]string{"Content-Type", "multipart/form-data"}, "a=1", 0, false},
		"no type":              {[]string{"Content-Type", ""}, "a=1", 0, false},
		"compressed":           {[]string{"Content-Encoding", "gzip"}, "a=1", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, f := formsWorld(t, loginFirst, func(s *Snapshot) { s.Server.ReplayBodyBytes = c.limit })
			res, body := w.post(c.body, c.headers...)
			form, kept := f.kept[formID]
			if kept != c.kept || res.StatusCode != 401 {
				t.Fatalf("kept: %v, %s\n%s", kept, res.Status, body)
			}
			if kept && (string(form.Body) != c.body || form.ContentType != res.Request.Header.Get("Content-Type") ||
				!strings.Contains(body, `href="/.doorward/login?return=kept"`) || res.Header.Get("Set-Cookie") == "") {
				t.Errorf("%+v\n%s", form, body)
			}
			if !kept && !strings.Contains(body, "what you sent was not kept") {
				t.Error(body)
			}
		})
	}
}

// fetch and curl are told in their own language, and nothing of theirs is kept.
func TestProgramsFormsAreNotKept(t *testing.T) {
	w, f := formsWorld(t, loginFirst, nil)
	res, _ := w.post("a=1", "Sec-Fetch-Mode", "cors")
	if res.StatusCode != 401 || res.Header.Get("Content-Type") != "application/problem+json" || len(f.kept) != 0 {
		t.Errorf("%s %v %v", res.Status, res.Header, f.kept)
	}
	f.fail = true
	if _, body := w.post("a=1"); !strings.Contains(body, "what you sent was not kept") {
		t.Error(body)
	}
}

func TestKeptFormIsSentAgain(t *testing.T) {
	w, f := formsWorld(t, loginFirst, nil)
	again := access.FormAgainField + "=" + formID
	send := func(body string, headers ...string) (int, string) {
		res, text := w.post(body, append([]string{"Cookie", asAlice}, headers...)...)
		return res.StatusCode, text
	}
	kept := access.Form{ContentType: "multipart/form-data; boundary=x", Body: bytes.Repeat([]byte("ä"), 100)}
	f.kept[formID] = kept
	status, text := send(again)
	if status != 200 || !strings.Contains(text, string(kept.Body)) || !strings.Contains(text, kept.ContentType) {
		t.Errorf("%d %s", status, text)
	}
	if status, text = send(again); status != http.StatusGone || !strings.Contains(text, access.FormNotKept.Info().Title) {
		t.Errorf("a second time: %d %s", status, text)
	}
	f.kept[formID] = kept
	if status, _ = send(again, "Sec-Fetch-Site", "cross-site"); status != http.StatusGone || len(f.kept) != 1 {
		t.Errorf("from another site: %d", status)
	}
	// The application's own forms pass unchanged, also of the same length.
	for _, own := range []string{strings.Repeat("z", len(again)), "", "a=1", again + "x"} {
		if status, text = send(own); status != 200 || own != "" && !strings.Contains(text, own) || len(f.kept) != 1 {
			t.Errorf("%q: %d %s", own, status, text)
		}
	}
	// The session ended meanwhile: the same form waits on.
	res, body := w.post(again)
	if res.StatusCode != 401 || !strings.Contains(body, "/.doorward/login?return=kept") || !bytes.Equal(f.kept[formID].Body, kept.Body) {
		t.Errorf("%s %s", res.Status, body)
	}
}

func TestReplayLimitIsChecked(t *testing.T) {
	for n, ok := range map[int]bool{0: true, -1: true, 1: true, 512 << 10: true, -2: false, 512<<10 + 1: false} {
		faults := access.NewFaults("")
		(&Config{Listen: "127.0.0.1:1", ReplayBodyBytes: n}).Validate(faults)
		if (len(faults.List()) == 0) != ok {
			t.Errorf("%d: %+v", n, faults.List())
		}
	}
}

// A refusal between the decision and the application costs nobody what they
// typed.
func TestKeptFormSurvivesARefusal(t *testing.T) {
	w, f := formsWorld(t, loginFirst, func(s *Snapshot) { s.AuditRequired = true })
	f.kept[formID] = access.Form{ContentType: "application/x-www-form-urlencoded", Body: []byte("a=1")}
	w.rec.err = errors.New("disk full")
	if res, _ := w.post(access.FormAgainField+"="+formID, "Cookie", asAlice); res.StatusCode != 503 || len(f.kept) != 1 {
		t.Errorf("%s, %d forms kept", res.Status, len(f.kept))
	}
}
