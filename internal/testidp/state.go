package testidp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// maxKept bounds every shelf: a provider that anybody may send logins to must
// not grow without end.
const maxKept = 10_000

// shelf keeps values until they expire.
type shelf[T any] map[string]kept[T]

type kept[T any] struct {
	Value   T
	Expires time.Time
}

// put keeps a value. On a full shelf what expires first has to go.
func (s shelf[T]) put(key string, value T, expires, now time.Time) {
	if _, replaces := s[key]; !replaces && len(s) >= maxKept {
		first := ""
		for k, old := range s {
			if !now.Before(old.Expires) {
				delete(s, k)
			} else if first == "" || old.Expires.Before(s[first].Expires) {
				first = k
			}
		}
		if len(s) >= maxKept {
			delete(s, first)
		}
	}
	s[key] = kept[T]{value, expires}
}

func (s shelf[T]) get(key string, now time.Time) (value T, ok bool) {
	k, ok := s[key]
	if !ok || !now.Before(k.Expires) {
		return value, false
	}
	return k.Value, true
}

// state is what may outlive the process.
type state struct {
	Keys     []*key         // newest last; all are published
	Sessions shelf[session] // by digest of the cookie
	Grants   shelf[grant]   // by the first part of the refresh token
}

// session is one single sign-on session in one browser.
type session struct {
	SID      string
	Subject  string
	AuthTime time.Time
	MFA      bool
}

// grant is what a client got for one login, together with the refresh token
// that is good now. Any other refresh token of the grant is a replay.
type grant struct {
	Client   string
	Subject  string
	SID      string
	Scope    string
	ACR      string
	AuthTime time.Time
	Refresh  string // digest of the current refresh token
}

type accessToken struct {
	grant string
	scope scopes
}

// load reads the state file or, where there is none, starts afresh.
func (p *Provider) load() error {
	p.algorithm = p.options.Algorithms[0]
	if p.options.StateFile != "" {
		text, err := os.ReadFile(p.options.StateFile)
		if err == nil {
			err = json.Unmarshal(text, &p.state)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("testidp: state file %s: %w", p.options.StateFile, err)
		}
	}
	if p.state.Sessions == nil {
		p.state.Sessions = shelf[session]{}
	}
	if p.state.Grants == nil {
		p.state.Grants = shelf[grant]{}
	}
	for _, algorithm := range p.options.Algorithms {
		if p.signingKey(algorithm) != nil {
			continue
		}
		if err := p.addKey(algorithm); err != nil {
			return err
		}
	}
	return p.save()
}

// save writes the state file, whole or not at all. The caller holds p.mu.
func (p *Provider) save() error {
	path := p.options.StateFile
	if path == "" {
		return nil
	}
	text, err := json.Marshal(p.state)
	if err != nil {
		return fmt.Errorf("testidp: state: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("testidp: state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("testidp: state: %w", err)
	}
	return nil
}

// saved is save for requests: a state file that cannot be written costs the
// demo its memory, not its service. The caller holds p.mu.
func (p *Provider) saved() {
	if err := p.save(); err != nil {
		p.options.Log.Error("state not kept", "err", err)
	}
}

// EndGrants ends all refresh and access tokens of a person, so that the next
// refresh answers invalid_grant, and returns how many grants there were.
func (p *Provider) EndGrants(subject string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.endGrants(func(g grant) bool { return g.Subject == subject })
}

func (p *Provider) endGrants(match func(grant) bool) (n int) {
	for id, g := range p.state.Grants {
		if match(g.Value) {
			delete(p.state.Grants, id)
			n++
		}
	}
	p.saved()
	return n
}
