package testidp

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
)

// A Misbehaviour answers a request instead of an inventory. honest is what the
// inventory would have done.
type Misbehaviour func(w http.ResponseWriter, r *http.Request, honest http.HandlerFunc)

// Once lets the next requests for pages meet one misbehaviour each. Nil answers
// honestly.
func (i *Inventory) Once(all ...Misbehaviour) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.once = append(i.once, all...)
}

// Always lets every request for a page meet a misbehaviour, until nil is given.
func (i *Inventory) Always(m Misbehaviour) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.always = m
}

// AlwaysToken is Always for the requests for tokens.
func (i *Inventory) AlwaysToken(m Misbehaviour) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.token = m
}

// Throttles answers with a status such as 429 and a Retry-After, "" for none.
func Throttles(status int, after string) Misbehaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
	}
}

// HangsUp closes the connection without an answer.
func HangsUp() Misbehaviour {
	return func(http.ResponseWriter, *http.Request, http.HandlerFunc) { panic(http.ErrAbortHandler) }
}

// BreaksOff promises the whole answer, sends half of it and closes the
// connection.
func BreaksOff() Misbehaviour {
	return func(w http.ResponseWriter, r *http.Request, honest http.HandlerFunc) {
		body := truth(r, honest).Body.Bytes()
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// Says answers with something else.
func Says(a Answer) Misbehaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { a.send(w) }
}

// Redirects sends whoever asks elsewhere.
func Redirects(to string) Misbehaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	}
}

// Lies changes the text of the true answer.
func Lies(change func(body []byte) []byte) Misbehaviour {
	return func(w http.ResponseWriter, r *http.Request, honest http.HandlerFunc) {
		answer := truth(r, honest)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(change(answer.Body.Bytes()))
	}
}

// LiesAbout changes the members of the true answer, an object.
func LiesAbout(change func(answer map[string]any)) Misbehaviour {
	return Lies(func(body []byte) []byte {
		var answer map[string]any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if decoder.Decode(&answer) != nil {
			return body
		}
		change(answer)
		changed, _ := json.Marshal(answer) // it was JSON
		return changed
	})
}

// Next lets every page say what leads to the next one: next is called for each.
func (i *Inventory) Next(next func() any) Misbehaviour {
	return LiesAbout(func(answer map[string]any) {
		at := answer
		path := i.vendor.next
		for _, step := range path[:len(path)-1] {
			inner, ok := at[step].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[step] = inner
			}
			at = inner
		}
		at[path[len(path)-1]] = next()
	})
}

// truth is what the inventory would have answered.
func truth(r *http.Request, honest http.HandlerFunc) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	honest(answer, r)
	return answer
}
