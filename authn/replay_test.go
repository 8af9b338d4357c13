package authn

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// formStage is a stage whose application takes forms: it keeps those that need
// a login first, and echoes the others.
type formStage struct {
	*stage
	kept store.Store
	link string // of the login that leads back to the form kept last
}

func worldWithForms(t *testing.T, change func(*Options)) *formStage {
	s := &formStage{}
	s.stage = world(t, func(o *Options) {
		s.kept = store.NewMemory(o.Now)
		o.Forms = s.kept
		if change != nil {
			change(o)
		}
	})
	t.Cleanup(func() { s.kept.Close() })
	s.net[strings.TrimPrefix(app, "https://")] = http.HandlerFunc(s.formDoor)
	return s
}

func (s *formStage) formDoor(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.door(w, r)
		return
	}
	req := &access.Request{ID: "post", Time: s.clock.Now(), Method: "POST", Scheme: "https", Host: r.Host, Path: r.URL.Path}
	if err := s.auth.Identify(r, req); err != nil {
		s.Error(err)
	}
	body, _ := io.ReadAll(r.Body)
	id, again := strings.CutPrefix(string(body), access.FormAgainField+"=")
	if req.Identity.Nobody() || !satisfied(&req.Identity.Login, s.ask, req.Time) {
		form := access.Form{ContentType: r.Header.Get("Content-Type"), Body: body}
		if again {
			form = access.Form{Again: id}
		}
		link, err := s.auth.Keep(w, r, req, s.ask, "", form)
		if err != nil {
			s.Error(err)
		}
		s.link = app + link
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	form := access.Form{Body: body}
	if again {
		var err error
		if form, err = s.auth.Release(r, req, id); err != nil {
			w.WriteHeader(access.ReasonOf(err).Info().Status)
			fmt.Fprintf(w, "refused: %s", access.ReasonOf(err))
			return
		}
	}
	fmt.Fprintf(w, "took %s of %s at %s", form.Body, req.Identity.User(), r.URL.RequestURI())
}

func (b *browser) post(address, body string) view {
	b.Helper()
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

const secretForm = "amount=100&pin=4711"

func TestFormSurvivesTheLogin(t *testing.T) {
	for name, change := range map[string]func(*Options){"own callback": nil, "login host": withLoginHost} {
		t.Run(name, func(t *testing.T) {
			s := worldWithForms(t, change)
			b := s.browser()
			b.post(app+"/pay?to=bob", secretForm)
			page := b.enter(s.link, "alice")
			page.want(t, "Send it again?")
			page.want(t, `action="https://app.corp.test/pay?to=bob"`)
			if strings.Contains(page.body, "4711") {
				t.Error("the page shows what was sent")
			}
			b.submit(page, nil).want(t, "took "+secretForm+" of corp:alice at /pay?to=bob")
			b.submit(page, nil).refused(t, access.FormNotKept)
			b.get(page.at.String()).refused(t, access.FormNotKept)
		})
	}
}

// Step-up: one trip to the provider, and what was sent comes back.
func TestFormSurvivesTheStepUp(t *testing.T) {
	s := worldWithForms(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	b.post(app+"/pay", secretForm)
	factor := b.get(s.link)
	factor.want(t, `name="otp"`)
	page := b.submit(factor, map[string]string{"otp": "123456"})
	page.want(t, "Send it again?")
	// Too late for the rule once more: the form waits on, and nothing new is kept.
	s.ask = access.LoginRequire{MaxAge: access.Duration(time.Minute)}
	s.clock.Advance(2 * time.Minute)
	b.submit(page, nil)
	page = b.password(b.get(s.link), "alice")
	b.submit(page, nil).want(t, "took "+secretForm)
}

// A provider that cannot do what is asked leads to one page, after one try, and
// the link on it does not begin again by itself.
func TestFormAndAProviderThatCannot(t *testing.T) {
	s := worldWithForms(t, nil)
	b := s.browser()
	b.enter(app+"/", "bob").want(t, "hello corp:bob")
	s.reasons()
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	b.post(app+"/pay", secretForm)
	b.get(s.link).refused(t, access.StepUpFailed)
	if trips := strings.Count(strings.Join(b.trail, "\n"), "corp.test/authorize"); trips != 1 {
		t.Errorf("%d trips to the provider: %v", trips, b.trail)
	}
	s.wantReasons(access.StepUpFailed)
}

func TestKeptFormBelongsToOneBrowserAndPerson(t *testing.T) {
	s := worldWithForms(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice")
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	b.post(app+"/pay", secretForm)
	link := s.link
	s.ask = access.LoginRequire{}
	replay := app + access.ReplayPath + "?" + keptParam + "=" + link[strings.Index(link, "form%3D")+len("form%3D"):][:keptID]
	page := b.get(replay)
	page.want(t, "Send it again?")

	other := s.browser() // another browser, same person
	other.enter(app+"/", "alice")
	other.get(replay).refused(t, access.FormNotKept)
	other.submit(page, nil).refused(t, access.FormNotKept)

	b.password(b.get(app+"/.doorward/login?switch=1"), "dave") // same browser, another person
	b.get(replay).refused(t, access.FormNotKept)
	b.submit(page, nil).refused(t, access.FormNotKept)

	b.password(b.get(app+"/.doorward/login?switch=1"), "alice")
	elsewhere := page
	elsewhere.body = strings.ReplaceAll(page.body, `/pay"`, `/admin"`)
	b.submit(elsewhere, nil).refused(t, access.FormNotKept)
	s.clock.Advance(keptLife + time.Second)
	b.submit(page, nil).refused(t, access.FormNotKept)
}

func TestStrangersFormBelongsToWhoLogsInFirst(t *testing.T) {
	s := worldWithForms(t, nil)
	b := s.browser()
	b.post(app+"/pay", secretForm)
	page := b.enter(s.link, "dave")
	page.want(t, "Send it again?")
	b.password(b.get(app+"/.doorward/login?switch=1"), "alice")
	b.submit(page, nil).refused(t, access.FormNotKept)
}

// What lies in the store is bounded, whoever posts how often, and tells nothing.
func TestKeptFormsAreBoundedAndSealed(t *testing.T) {
	s := worldWithForms(t, nil)
	known := s.browser()
	known.enter(app+"/", "alice")
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	for range 40 {
		known.post(app+"/pay", secretForm)
	}
	for range 300 {
		s.browser().post(app+"/pay", secretForm)
	}
	n := 0
	for item, err := range s.kept.List(context.Background(), keptPrefix) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; strings.Contains(string(item.Value), "4711") || strings.Contains(string(item.Value), "/pay") || strings.Contains(item.Key, "alice") {
			t.Errorf("%s can be read: %q", item.Key, item.Value)
		}
	}
	if n > placesOfStranger+placesPerUser || n < placesPerUser {
		t.Errorf("%d forms are kept", n)
	}
	if size := len(known.cookies(app)[LoginCookieName("https")]); size > maxCookie {
		t.Errorf("the cookie has %d bytes", size)
	}
}

func TestReplayAddressIsTheOnlyPageOfOursToReturnTo(t *testing.T) {
	id := strings.Repeat("A", keptID)
	for text, ok := range map[string]bool{
		replayAddress(id): true, replayAddress(id) + "&x=1": false, replayAddress("short"): false, replayAddress(id) + "A": false,
		"/.doorward/replay": false, "/.doorward/replay?form=" + strings.Repeat("/", keptID): false, "//evil" + replayAddress(id): false,
		"/.doorward/logout": false,
	} {
		if _, got := parseGoal(text); got != ok {
			t.Errorf("%s: %v", text, got)
		}
	}
	s := worldWithForms(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice")
	for _, query := range []string{"", "?form=", "?form=" + id, "?form=%zz", "?form=" + strings.Repeat("x", 9000)} {
		b.get(app+access.ReplayPath+query).refused(t, access.FormNotKept)
	}
}
