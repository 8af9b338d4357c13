package session

import (
	"testing"
	"time"
)

// A refresh token and the key it is bound to are kept, replaced and forgotten
// together: one is worth nothing without the other.
func TestKeyStaysWithItsRefreshToken(t *testing.T) {
	d := newDesk(t, memory(t))
	kept := func(secret string) tokenRecord {
		t.Helper()
		hash, _ := digest(secret)
		ticket, err := d.readTicket(d.ctx, hash, secret)
		if err != nil {
			t.Fatal(err)
		}
		rec, _, err := d.readLogin(d.ctx, ticket.Login)
		if err != nil {
			t.Fatal(err)
		}
		dataKey, err := ticket.dataKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := openTokens(dataKey, rec.Tokens, ticket.Login)
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	s := start("alice")
	for _, step := range []struct{ fresh, want Tokens }{
		{Tokens{Refresh: "r1", Key: "k1", ID: "i1"}, Tokens{Refresh: "r1", Key: "k1", ID: "i1"}},
		{Tokens{Key: "k2", ID: "i2"}, Tokens{Refresh: "r1", Key: "k1", ID: "i2"}},
		{Tokens{Refresh: "r3", Key: "k3"}, Tokens{Refresh: "r3", Key: "k3", ID: "i2"}},
		{Tokens{Refresh: "r4"}, Tokens{Refresh: "r4", ID: "i2"}},
	} {
		s.Tokens = step.fresh
		s.Tokens.Expires = d.now().Add(time.Hour)
		s.Previous = d.start(s)
		if got, want := kept(s.Previous), (tokenRecord{Refresh: step.want.Refresh, Key: step.want.Key, ID: step.want.ID}); got != want {
			t.Errorf("kept %v, want %v", got, want)
		}
	}
}
