package testidp

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"sync"
)

// Endpoint names one of the provider's endpoints.
type Endpoint string

// The endpoints. A call of the token endpoint counts as Token when it redeems a
// code, and as Refresh when it redeems a refresh token.
const (
	Discovery  Endpoint = "discovery"
	JWKS       Endpoint = "jwks"
	Authorize  Endpoint = "authorize"
	Login      Endpoint = "login" // the forms for password and second factor
	Token      Endpoint = "token"
	Refresh    Endpoint = "refresh"
	Userinfo   Endpoint = "userinfo"
	Revocation Endpoint = "revocation"
	EndSession Endpoint = "end_session"
)

// Faults says how the provider misbehaves. The zero value behaves.
type Faults struct {
	// Down answers 503 everywhere.
	Down bool
	// Hangup closes every connection without an answer.
	Hangup bool
	// Answers replaces the whole answer of an endpoint.
	Answers map[Endpoint]Answer

	// MutateDiscovery changes the metadata before they are sent, for example
	// its issuer.
	MutateDiscovery func(metadata map[string]any)
	// MutateIDToken changes an ID token before it is signed: remove the nonce,
	// move exp, add an aud. Like all
	// hooks it may call the provider, such as Sign or PublicKey.
	MutateIDToken func(header, claims map[string]any)
	// ForgeIDToken returns the whole ID token instead, signed by whatever or not
	// at all. It runs after MutateIDToken.
	ForgeIDToken func(claims map[string]any) string
	// MutateTokens changes a token response before it is sent.
	MutateTokens func(answer map[string]any)

	// CallbackIssuer is sent as the iss parameter instead of our own (RFC 9207).
	CallbackIssuer string
	// OmitCallbackIssuer sends none, although the metadata promise it.
	OmitCallbackIssuer bool
	// IgnoreACR never asks for a second factor and says acr "pwd", also where
	// the client called the class essential.
	IgnoreACR bool
	// GroupOverage withholds groups and points to another place, as Entra does
	// for people in many groups.
	GroupOverage bool
}

// Answer is a canned HTTP response.
type Answer struct {
	// Status defaults to 200, ContentType to application/json.
	Status      int
	ContentType string
	Header      http.Header
	Body        string
	// Filler is how many bytes of white space follow the Body.
	Filler int
}

// EmptyKeys is a key set without keys.
func EmptyKeys() Answer { return Answer{Body: `{"keys":[]}`} }

// NotJSON is what a captive portal or a broken load balancer says, with 200.
func NotJSON() Answer {
	return Answer{ContentType: "text/html", Body: "<!doctype html><title>Welcome to our network</title>"}
}

// Huge is lawful JSON followed by 64 MiB of white space, for readers without a
// limit.
func Huge() Answer { return Answer{Body: `{"keys":[]}`, Filler: 64 << 20} }

// Fails is an error response in OAuth's format (RFC 6749 §5.2), such as
// (400, "invalid_grant") or (503, "temporarily_unavailable").
func Fails(status int, code string) Answer {
	return Answer{Status: status, Body: `{"error":"` + code + `"}`}
}

// Hold makes requests wait. See Provider.Hold.
type Hold struct {
	arrived  chan struct{}
	released chan struct{}
	release  func()
}

// Arrived receives one value for each request that waits.
func (h *Hold) Arrived() <-chan struct{} { return h.arrived }

// Release lets the waiting requests go on and ends the hold. It may be called
// more than once.
func (h *Hold) Release() { h.release() }

// trouble is the state of misbehaviour, apart from the provider's own state so
// that a test can change it while a request is held.
type trouble struct {
	mu       sync.Mutex
	faults   Faults
	holds    map[Endpoint]*Hold
	requests map[Endpoint]int
}

// Fault changes how the provider misbehaves, for all requests that come later.
func (p *Provider) Fault(change func(*Faults)) {
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	next := p.trouble.faults
	next.Answers = maps.Clone(next.Answers) // requests under way keep the old map
	if next.Answers == nil {
		next.Answers = map[Endpoint]Answer{}
	}
	change(&next)
	p.trouble.faults = next
}

// Heal ends all faults and holds.
func (p *Provider) Heal() {
	p.trouble.mu.Lock()
	holds := p.trouble.holds
	p.trouble.faults, p.trouble.holds = Faults{}, nil
	p.trouble.mu.Unlock()
	for _, h := range holds {
		h.Release()
	}
}

// Hold makes requests to an endpoint wait until Release is called, their
// client gives up or the provider stops. A second Hold on the same endpoint
// takes over for later requests.
func (p *Provider) Hold(e Endpoint) *Hold {
	h := &Hold{arrived: make(chan struct{}, 1024), released: make(chan struct{})}
	h.release = sync.OnceFunc(func() {
		p.trouble.mu.Lock()
		defer p.trouble.mu.Unlock()
		if p.trouble.holds[e] == h {
			delete(p.trouble.holds, e)
		}
		close(h.released)
	})
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	if p.trouble.holds == nil {
		p.trouble.holds = map[Endpoint]*Hold{}
	}
	p.trouble.holds[e] = h
	return h
}

// Requests returns how many requests an endpoint has got, also those that were
// held or met a fault.
func (p *Provider) Requests(e Endpoint) int {
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	return p.trouble.requests[e]
}

func (t *trouble) current() Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.faults
}

// meet counts a request, holds it where asked and reports whether a fault has
// answered it. What counts is the trouble at the time the hold ends.
func (t *trouble) meet(w http.ResponseWriter, r *http.Request, e Endpoint) (answered bool) {
	t.mu.Lock()
	if t.requests == nil {
		t.requests = map[Endpoint]int{}
	}
	t.requests[e]++
	hold := t.holds[e]
	t.mu.Unlock()

	if hold != nil {
		hold.wait(r)
	}
	faults := t.current()
	switch answer, canned := faults.Answers[e]; {
	case faults.Hangup:
		panic(http.ErrAbortHandler)
	case faults.Down:
		http.Error(w, "the provider is down", http.StatusServiceUnavailable)
	case canned:
		answer.send(w)
	default:
		return false
	}
	return true
}

func (h *Hold) wait(r *http.Request) {
	select {
	case h.arrived <- struct{}{}:
	default: // nobody counts that far
	}
	select {
	case <-h.released:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

func (a Answer) send(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if a.ContentType == "" {
		a.ContentType = "application/json"
	}
	w.Header().Set("Content-Type", a.ContentType)
	w.WriteHeader(max(a.Status, http.StatusOK))
	_, err := io.WriteString(w, a.Body)
	blank := bytes.Repeat([]byte{' '}, 32<<10)
	for left := a.Filler; left > 0 && err == nil; left -= len(blank) {
		_, err = w.Write(blank[:min(left, len(blank))]) // an error: the client has had enough
	}
}
