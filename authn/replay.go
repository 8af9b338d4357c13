package authn

import (
	"context"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
	"github.com/doorward/doorward/internal/store"
)

// A form that was posted and needs a login first is kept while its sender logs
// in, so that nobody types it twice. As with logins in flight there are two
// halves: the sealed form lies in the store, the key that opens it in the
// browser's cookie. It comes back only by a click, only to the browser and the
// person that sent it, at the address it was sent to, once, within ten minutes.
const (
	keptLife  = 10 * time.Minute
	maxKept   = 3 // per browser, oldest dropped
	keptID    = 22
	keptParam = "form" // of access.ReplayPath

	// The store holds a fixed number of places for kept forms: few for each
	// person, so that nobody fills it, and some for all who are not logged in,
	// so that a flood of strangers only drives out strangers.
	placesPerUser    = 4
	placesOfStranger = 128
	keptPrefix       = "form/"
)

// keptForm is the half that stays in the browser.
type keptForm struct {
	ID    string `json:"i"`
	Key   string `json:"k"`
	Since int64  `json:"t"`
	// Place is where in the store the other half lies.
	Place string `json:"p"`
	// User is the fingerprint of the only person who may send it. Empty until
	// the first login, where a stranger posted it.
	User string `json:"u,omitempty"`
}

// sealedForm is the half in the store.
type sealedForm struct {
	Target string `json:"to"` // path and query
	access.Form
}

var errNotKept = errors.New("the form is not kept: outdated, driven out by others, sent already, or from another browser")

// Keep takes a form that needs a login first and returns the address of that
// login: afterwards the visitor is asked whether to send the form again. The
// caller has made sure that a page of the same origin posted it. form.Again
// names a form that is kept already. It sets a cookie and writes nothing else.
func (a *Authenticator) Keep(w http.ResponseWriter, r *http.Request, req *access.Request, ask access.LoginRequire, provider string, form access.Form) (login string, err error) {
	if a.forms == nil {
		return "", access.Because(access.FormNotKept, errors.New("no store for forms"))
	}
	id := form.Again
	if id == "" {
		if id, err = a.keep(w, r, req, form); err != nil {
			return "", err
		}
	}
	lr := loginRequest{Return: replayAddress(id), Ask: ask, Provider: provider}
	if known := a.clients[req.Identity.Provider]; known != nil && provider == "" {
		lr.Provider = known.cfg.ID // a step-up is for the same person
	}
	return access.LoginPath + "?" + lr.values().Encode(), nil
}

func (a *Authenticator) keep(w http.ResponseWriter, r *http.Request, req *access.Request, form access.Form) (id string, err error) {
	origin := req.Origin()
	kept := keptForm{Since: a.now().Unix(), User: personOf(&req.Identity)}
	if kept.ID, err = a.seal.token(16); err != nil {
		return "", err
	}
	if kept.Key, err = a.seal.token(32); err != nil {
		return "", err
	}
	kept.Place = placeOf(kept.ID, kept.User)
	seal, err := kept.aead()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(sealedForm{Target: returnOf(r.URL), Form: form})
	if err != nil {
		return "", err
	}
	nonce, err := a.seal.token(9) // 12 characters are 12 bytes; the key is used once
	if err != nil {
		return "", err
	}
	box := seal.Seal([]byte(nonce), []byte(nonce), text, kept.about(origin))
	if _, err = a.forms.Put(r.Context(), store.Item{
		Key: keptPrefix + kept.Place, Value: box, Version: store.Any, Expires: a.now().Add(keptLife),
	}); err != nil {
		return "", access.Because(access.StoreUnavailable, err)
	}
	j := a.openJar(r, origin)
	j.Forms = append(j.Forms, kept)
	return kept.ID, a.closeJar(w, origin, j)
}

// personOf names a person in the cookie without spelling it out.
func personOf(id *access.Identity) string {
	if id.Nobody() {
		return ""
	}
	return fingerprint(id.Issuer + "\n" + id.Subject)
}

// placeOf chooses one of the places in the store.
func placeOf(id, user string) string {
	raw, _ := base64.RawURLEncoding.DecodeString(id)
	n := binary.BigEndian.Uint32(append(raw, 0, 0, 0, 0))
	if user == "" {
		return "-/" + strconv.Itoa(int(n%placesOfStranger))
	}
	return user + "/" + strconv.Itoa(int(n%placesPerUser))
}

func (k *keptForm) aead() (cipher.AEAD, error) {
	key, err := base64.RawURLEncoding.DecodeString(k.Key)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

// about is what the seal also covers.
func (k *keptForm) about(origin string) []byte { return []byte("form\n" + k.ID + "\n" + origin) }

func replayAddress(id string) string { return access.ReplayPath + "?" + keptParam + "=" + id }

// parseGoal is parseReturn, except that a login may also lead to the page that
// asks whether to send a form again: it only shows a button.
func parseGoal(text string) (string, bool) {
	if id, ok := strings.CutPrefix(text, replayAddress("")); ok && isKeptID(id) {
		return text, true
	}
	return parseReturn(text)
}

func isKeptID(id string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	return err == nil && len(id) == keptID && len(raw) == 16
}

// find returns the browser's half of a form, and its number in the jar.
func (j *jar) find(id string) int {
	return slices.IndexFunc(j.Forms, func(k keptForm) bool { return k.ID == id })
}

// load opens a kept form for the person who asks.
func (a *Authenticator) load(ctx context.Context, origin string, kept *keptForm, id *access.Identity) (sealedForm, uint64, error) {
	var form sealedForm
	if a.forms == nil || outdated(kept.Since, a.now(), keptLife) {
		return form, 0, access.Because(access.FormNotKept, errNotKept)
	}
	if user := personOf(id); user == "" || user != kept.User {
		return form, 0, access.Because(access.FormNotKept, errors.New("the form belongs to somebody else"))
	}
	item, err := a.forms.Get(ctx, keptPrefix+kept.Place)
	if errors.Is(err, store.ErrNotFound) {
		return form, 0, access.Because(access.FormNotKept, errNotKept)
	}
	if err != nil {
		return form, 0, access.Because(access.StoreUnavailable, err)
	}
	seal, err := kept.aead()
	if err != nil || len(item.Value) < seal.NonceSize() {
		return form, 0, access.Because(access.FormNotKept, errNotKept)
	}
	nonce, box := item.Value[:seal.NonceSize()], item.Value[seal.NonceSize():]
	text, err := seal.Open(nil, nonce, box, kept.about(origin))
	if err != nil { // another form has taken the place
		return form, 0, access.Because(access.FormNotKept, errNotKept)
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return form, 0, access.Because(access.FormNotKept, err)
	}
	return form, item.Version, nil
}

// serveReplay answers /.doorward/replay?form=ID: the page that asks whether to
// send a form again.
func (a *Authenticator) serveReplay(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return access.Becausef(access.BadRequest, "method %.20q", r.Method)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !isKeptID(query.Get(keptParam)) {
		return access.Because(access.FormNotKept, fmt.Errorf("no form is named: %w", errNotKept))
	}
	if err := a.identifySession(r, req); err != nil {
		return err
	}
	origin := req.Origin()
	j := a.openJar(r, origin)
	i := j.find(query.Get(keptParam))
	if i < 0 {
		return access.Because(access.FormNotKept, errNotKept)
	}
	kept := &j.Forms[i]
	if req.Identity.Nobody() {
		return a.start(w, r, req, loginRequest{Return: replayAddress(kept.ID)})
	}
	if kept.User == "" {
		// Posted by a stranger: from now on it belongs to who logged in.
		kept.User = personOf(&req.Identity)
		if err := a.closeJar(w, origin, j); err != nil {
			return err
		}
	}
	form, _, err := a.load(r.Context(), origin, kept, &req.Identity)
	if err != nil {
		return err
	}
	page.SendAgain(w, page.SendAgainData{
		App: req.Host, User: req.Identity.Email, Target: origin + form.Target,
		Size: len(form.Body), Since: time.Unix(kept.Since, 0).UTC(),
		Hidden: map[string]string{access.FormAgainField: kept.ID},
	})
	return nil
}

// Release returns a kept form to the person who sent it, at the address it was
// sent to, once. Errors are FormNotKept and StoreUnavailable.
func (a *Authenticator) Release(r *http.Request, req *access.Request, id string) (access.Form, error) {
	origin := req.Origin()
	j := a.openJar(r, origin)
	i := j.find(id)
	if i < 0 {
		return access.Form{}, access.Because(access.FormNotKept, errNotKept)
	}
	form, version, err := a.load(r.Context(), origin, &j.Forms[i], &req.Identity)
	if err != nil {
		return access.Form{}, err
	}
	if form.Target != returnOf(r.URL) {
		return access.Form{}, access.Becausef(access.FormNotKept, "the form was sent to another address, %.200q", form.Target)
	}
	switch err := a.forms.Delete(r.Context(), keptPrefix+j.Forms[i].Place, version); {
	case err == nil:
		return form.Form, nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
		return access.Form{}, access.Because(access.FormNotKept, errNotKept)
	default:
		return access.Form{}, access.Because(access.StoreUnavailable, err)
	}
}
