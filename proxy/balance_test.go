package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestRoundRobinIsEven(t *testing.T) {
	inFleet(t, 3, nil, func(f *fleet) {
		if got, want := f.gets(30), map[string]int{"7001": 10, "7002": 10, "7003": 10}; !reflect.DeepEqual(got, want) {
			t.Error(got)
		}
		// The share of one that is out goes to all others alike.
		f.apps[1].becomes(refusing)
		f.gets(3 * defaultEjectAfter)
		f.wantStates("up ejected up")
		if got, want := f.gets(30), map[string]int{"7001": 15, "7003": 15}; !reflect.DeepEqual(got, want) {
			t.Error(got)
		}
	})
}

func TestLeastRequestsAvoidsTheSlowOne(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Upstream.Balance = "least_requests" }, func(f *fleet) {
		f.apps[0].set(func(a *fakeApp) {
			a.answer = func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Second) }
		})
		for range 50 {
			go f.ask("GET", "/", nil)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		// It holds one request at a time, the other one answers at once.
		slow, quick := len(f.apps[0].taken()), len(f.apps[1].taken())
		if slow > 50/10+1 || slow+quick != 50 {
			t.Errorf("the slow one got %d of 50, the quick one %d", slow, quick)
		}
	})
}

func TestSessionsStayWhereTheyAre(t *testing.T) {
	bySession := func(r *access.Route) { r.Upstream.Balance = "session" }
	homes := func(f *fleet) map[string]string {
		list := map[string]string{}
		for i := range 60 {
			who := fmt.Sprint("person-", i)
			list[who] = f.ask("GET", "/", nil, "Cookie", "doorward="+who).body
		}
		return list
	}
	var elsewhere map[string]string
	inFleet(t, 3, bySession, func(f *fleet) { elsewhere = homes(f) })
	inFleet(t, 3, bySession, func(f *fleet) {
		before := homes(f)
		if !maps.Equal(before, homes(f)) {
			t.Error("sessions move although nothing happens")
		}
		if !maps.Equal(before, elsewhere) {
			t.Error("another replica sends sessions elsewhere")
		}
		share := map[string]int{}
		for _, home := range before {
			share[home]++
		}
		for _, a := range f.apps {
			if share[a.name] < 10 {
				t.Errorf("%s is home to %d of 60", a.name, share[a.name])
			}
		}
		// One is out: its sessions spread over the others, nobody else moves.
		f.apps[1].becomes(refusing)
		f.ask("GET", "/", nil)
		homes(f)
		f.wantStates("up ejected up")
		moved := map[string]int{}
		for who, home := range homes(f) {
			switch {
			case before[who] == f.apps[1].name:
				moved[home]++
			case before[who] != home:
				t.Errorf("%s moved from %s to %s", who, before[who], home)
			}
		}
		if len(moved) != 2 || moved[f.apps[1].name] != 0 {
			t.Errorf("the sessions of the one that is out moved to %v", moved)
		}
		// It is back, and so are they, at once.
		f.apps[1].becomes(well)
		time.Sleep(defaultEjectFor)
		if !maps.Equal(before, homes(f)) {
			t.Error("sessions do not come back")
		}
	})
}

func TestNobodyHasNoHome(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Upstream.Balance = "session" }, func(f *fleet) {
		if got := f.gets(10); got["7001"] != 5 || got["7002"] != 5 {
			t.Error(got)
		}
	})
}

func TestSlowStart(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Upstream.SlowStart = access.Duration(100 * time.Second) }, func(f *fleet) {
		f.apps[0].becomes(refusing)
		f.gets(2 * defaultEjectAfter)
		f.wantStates("ejected up")
		f.apps[0].becomes(well)
		time.Sleep(defaultEjectFor)
		f.wantStates("up up")
		var shares []int
		for range 4 {
			shares = append(shares, f.gets(400)["7001"])
			time.Sleep(40 * time.Second)
		}
		// A tenth of its half, then more, then the half.
		if shares[0] > 60 || shares[0] == 0 || shares[1] <= shares[0] || shares[2] <= shares[1] || shares[3] != 200 {
			t.Errorf("of 400 each: %v", shares)
		}
	})
}

func TestAnUpstreamThatIsFullRefusesAtOnce(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Upstream.MaxUnanswered = 3 }, func(f *fleet) {
		for _, a := range f.apps {
			a.becomes(silent)
		}
		for range 6 {
			go f.ask("GET", "/", nil)
		}
		synctest.Wait()
		o := f.ask("GET", "/", nil)
		if o.status != 503 || o.reason != access.UpstreamBusy || o.after != 0 || o.header.Get("Retry-After") == "" {
			t.Errorf("%+v", o)
		}
		u := f.door.Upstreams()[0]
		if u.Refused != 1 || u.Targets[0].Unanswered != 3 || u.Targets[1].Unanswered != 3 {
			t.Errorf("%+v", u)
		}
		time.Sleep(defaultTimeout + 10*time.Millisecond)
		synctest.Wait()
		if u := f.door.Upstreams()[0]; u.Targets[0].Open != 0 || u.Targets[1].Open != 0 || u.Targets[0].Unanswered != 0 {
			t.Errorf("%+v", u)
		}
	})
}

func TestRequestsWaitInLineForAConnection(t *testing.T) {
	inFleet(t, 1, func(r *access.Route) { r.Upstream.MaxConnections, r.Upstream.MaxWaiting = 2, 3 }, func(f *fleet) {
		f.apps[0].set(func(a *fakeApp) { a.answer = func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second) } })
		done := make(chan string, 10)
		for i := range 5 {
			go func() {
				o := f.ask("GET", fmt.Sprint("/", i), nil)
				done <- fmt.Sprint(i, " ", o.status, " ", o.after)
			}()
			synctest.Wait() // in this order
		}
		if at := f.door.Upstreams()[0].Targets[0]; at.Open != 2 || at.Waiting != 3 {
			t.Errorf("%+v", at)
		}
		if o := f.ask("GET", "/", nil); o.status != 503 || o.reason != access.UpstreamBusy || o.after != 0 {
			t.Errorf("%+v", o)
		}
		got := map[string]bool{}
		for range 5 {
			got[<-done] = true
		}
		for _, want := range []string{"0 200 1s", "1 200 1s", "2 200 2s", "3 200 2s", "4 200 3s"} {
			if !got[want] {
				t.Errorf("no %s in %v", want, got)
			}
		}
	})
}

func TestOneWhoLeavesTheLineLeavesNoTrace(t *testing.T) {
	inFleet(t, 1, func(r *access.Route) {
		r.Upstream.MaxConnections = 1
		r.Timeout = access.Duration(5 * time.Second)
	}, func(f *fleet) {
		f.apps[0].becomes(silent)
		go f.ask("GET", "/first", nil)
		synctest.Wait()
		// Waiting is part of the time there is. Both have it until the same moment: the
		// second may still come to its turn then, and notices a little later (watchAfter
		// in internal/h1).
		if o := f.ask("GET", "/second", nil); o.status/100 != 5 || o.after < 5*time.Second || o.after > 5*time.Second+10*time.Millisecond {
			t.Errorf("%+v", o)
		}
		synctest.Wait()
		if at := f.door.Upstreams()[0].Targets[0]; at.Open != 0 || at.Waiting != 0 || at.Unanswered != 0 {
			t.Errorf("%+v", at)
		}
		f.apps[0].becomes(well)
		if o := f.ask("GET", "/third", nil); o.status != 200 {
			t.Errorf("%+v", o)
		}
	})
}
