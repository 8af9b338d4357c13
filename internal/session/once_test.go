package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		d, replica := newDesk(t, s), newDesk(t, s)
		ran := 0
		once := func(d *desk, issuer, name string, result error) error {
			return d.Once(t.Context(), issuer, name, time.Now().Add(time.Minute), func() error { ran++; return result })
		}
		failed := errors.New("failed")
		if err := once(d, "https://login.example", "a", failed); err != failed {
			t.Errorf("what failed: %v", err)
		}
		if err := once(d, "https://login.example", "a", nil); err != nil {
			t.Errorf("once more after a failure: %v", err)
		}
		for _, again := range []*desk{d, replica} {
			if err := once(again, "https://login.example", "a", nil); err != ErrRepeated {
				t.Errorf("repeated: %v", err)
			}
		}
		for _, other := range [][2]string{{"https://login.example", "b"}, {"https://other.example", "a"}, {"https://login.example/", "a"}, {"https://login.example" + "a", ""}} {
			if err := once(d, other[0], other[1], nil); err != nil {
				t.Errorf("%q: %v", other, err)
			}
		}
		if ran != 6 {
			t.Errorf("ran %d times", ran)
		}
		time.Sleep(time.Minute) // of the bubble: the store forgets
		if err := once(d, "https://login.example", "a", nil); err != nil {
			t.Errorf("after its end: %v", err)
		}
	})
}

// A store that cannot tell whether it was done before stops it from being done.
func TestOnceFailsClosed(t *testing.T) {
	s := memory(t)
	d := newDesk(t, s)
	s.Close()
	err := d.Once(t.Context(), "https://login.example", "a", time.Now().Add(time.Minute), func() error {
		t.Error("it was done")
		return nil
	})
	if access.ReasonOf(err) != access.StoreUnavailable {
		t.Error(err)
	}
}

func TestRevokeExceptOne(t *testing.T) {
	d := newDesk(t, memory(t))
	here, there := d.start(start("alice")), d.start(start("alice"))
	e, _ := d.load(here, authHost)
	n, err := d.Revoke(context.Background(), Match{Issuer: "https://login.example", Subject: "alice", Except: e.Session.ID}, access.SessionEnded, "test")
	if n != 1 || err != nil {
		t.Errorf("%d revoked, %v", n, err)
	}
	d.opens(here, authHost, "alice", "")
	d.opens(there, authHost, "", access.SessionEnded)
	if _, err := d.Revoke(t.Context(), Match{Except: e.Session.ID}, access.SessionEnded, "test"); err == nil {
		t.Error("all but one were revoked, whoever they are")
	}
}
