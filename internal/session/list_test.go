package session

import (
	"slices"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestListShowsLiveSessionsAndNoSecret(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	d := newDesk(t, memory(t), func(o *Options) { o.Now = func() time.Time { return now } })
	ann := d.start(start("ann"))
	d.handOver(ann, appHost, "")
	bob := d.start(start("bob"))
	d.start(start("bob")) // in another browser

	list, more, err := d.List(d.ctx, Match{}, 10)
	if err != nil || more || len(list) != 3 {
		t.Fatal(list, more, err)
	}
	i := slices.IndexFunc(list, func(one access.SessionInfo) bool { return one.User == "corp:ann" })
	if one := list[i]; one.Email != "ann@example.com" || one.Login.ACR != "pwd" || !slices.Equal(one.Origins, []string{appHost, authHost}) ||
		!one.Created.Equal(now) || !one.Used.Equal(now) || !one.Expires.Equal(now.Add(10*time.Hour)) {
		t.Errorf("%+v", one)
	}
	his := Match{Issuer: "https://login.example", Subject: "bob"}
	if list, more, err := d.List(d.ctx, his, 1); err != nil || !more || len(list) != 1 || list[0].User != "corp:bob" {
		t.Error(list, more, err)
	}

	// A use that the store has not been told of counts; sessions nobody uses leave
	// the list.
	now = now.Add(50 * time.Minute)
	e, _ := d.load(bob, authHost)
	now = now.Add(30 * time.Minute)
	if list, _, err := d.List(d.ctx, Match{}, 10); err != nil || len(list) != 1 || list[0].ID != e.Session.ID {
		t.Error(list, err)
	}
	if n, err := d.Revoke(d.ctx, Match{LoginID: e.Session.ID}, access.SessionEnded, "ops"); n != 1 || err != nil {
		t.Error(n, err)
	}
	if list, _, err := d.List(d.ctx, Match{}, 10); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}
