package proxy

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// healthy has the addresses asked every ten seconds.
func healthy(r *access.Route) {
	r.Upstream.Health = access.HealthCheck{Path: "/healthz?deep=1", Interval: access.Duration(10 * time.Second)}
}

// awaitChecks waits until an address was asked n times more.
func (a *fakeApp) awaitChecks(n int) {
	for n += a.checked(); a.checked() < n; {
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

func TestHealthChecks(t *testing.T) {
	inFleet(t, 3, healthy, func(f *fleet) {
		sick := f.apps[1]
		time.Sleep(time.Second)
		f.wantStates("up up up")
		sick.set(func(a *fakeApp) { a.sick = true })
		sick.awaitChecks(2)
		f.wantStates("up up up") // two in a row are not enough
		sick.awaitChecks(1)
		f.wantStates("up down up")
		if got := f.gets(30); got["7002"] != 0 || got["7001"] != 15 {
			t.Error(got)
		}
		at := f.door.Upstreams()[0].Targets[1]
		if !strings.Contains(at.LastError, "it answered 500") || at.Since.IsZero() || at.FailedAt.IsZero() || at.Used() {
			t.Errorf("%+v", at)
		}
		time.Sleep(time.Hour)
		if n := f.logged("is down"); n != 1 {
			t.Errorf("the log says %d times that it is down", n)
		}
		sick.set(func(a *fakeApp) { a.sick = false })
		sick.awaitChecks(1)
		f.wantStates("up down up") // one is not enough
		sick.awaitChecks(1)
		f.wantStates("up up up")
		if at := f.door.Upstreams()[0].Targets[1]; !at.Warming {
			t.Errorf("%+v", at)
		}
		if n := f.logged("is used again"); n != 1 {
			t.Errorf("the log says %d times that it is used again", n)
		}
	})
}

func TestTheFirstHealthCheckSuffices(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) {}, func(f *fleet) {
		f.apps[0].becomes(refusing)
		f.install(healthy)
		synctest.Wait()
		f.wantStates("down up")
		if got := f.gets(10); got["7002"] != 10 {
			t.Error(got)
		}
	})
}

func TestHealthChecksThatHangFail(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) {}, func(f *fleet) {
		f.apps[0].becomes(silent)
		f.install(healthy)
		time.Sleep(defaultCheckTimeout - time.Millisecond)
		f.wantStates("up up")
		time.Sleep(2 * time.Millisecond)
		f.wantStates("down up")
		if at := f.door.Upstreams()[0].Targets[0]; !strings.Contains(at.LastError, "health.timeout") {
			t.Errorf("%+v", at)
		}
	})
}

func TestExpectedStatuses(t *testing.T) {
	inFleet(t, 1, func(r *access.Route) {
		healthy(r)
		r.Upstream.Health.Statuses = []int{200, 500}
	}, func(f *fleet) {
		f.apps[0].set(func(a *fakeApp) { a.sick = true })
		time.Sleep(time.Minute)
		f.wantStates("up")
		f.install(func(r *access.Route) {
			healthy(r)
			r.Upstream.Health.Statuses = []int{204}
		})
		time.Sleep(time.Minute)
		f.wantStates("down")
	})
}

// Where everything is out, everything is used.
func TestHealthChecksThatAreWrongAreNoOutage(t *testing.T) {
	inFleet(t, 3, healthy, func(f *fleet) {
		for _, a := range f.apps {
			a.set(func(a *fakeApp) { a.sick = true })
		}
		time.Sleep(time.Minute)
		f.wantStates("down down down")
		if got := f.gets(30); got["7001"] != 10 || got["7002"] != 10 || got["7003"] != 10 {
			t.Error(got)
		}
		f.apps[2].set(func(a *fakeApp) { a.sick = false })
		time.Sleep(time.Minute)
		if got := f.gets(30); got["7003"] != 30 {
			t.Error(got)
		}
	})
}

// They name the host that visitors' requests name.
func TestHostOfHealthChecks(t *testing.T) {
	for want, edit := range map[string]func(*access.Route){
		"127.0.0.1:7001": func(*access.Route) {},
		"app.example":    func(r *access.Route) { r.PreserveHost = true },
		"inner.example":  func(r *access.Route) { r.Host = "inner.example" },
	} {
		route := access.Route{ID: "app", From: "http://app.example", To: []string{"http://127.0.0.1:7001"}}
		healthy(&route)
		edit(&route)
		for entry := range table(t, route).entries {
			u, err := newUpstream(entry, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if req := u.healthRequest(u.targets[0]); req.Host != want || req.URL.Host != "127.0.0.1:7001" || req.URL.RequestURI() != "/healthz?deep=1" || len(req.Header) != 1 {
				t.Errorf("%s: %+v", want, req)
			}
		}
	}
}

func TestHealthChecksFollowReloads(t *testing.T) {
	inFleet(t, 2, healthy, func(f *fleet) {
		f.apps[0].set(func(a *fakeApp) { a.sick = true })
		time.Sleep(time.Minute)
		f.wantStates("down up")
		since := f.door.Upstreams()[0].Targets[0].Since
		checks := f.apps[0].checked()
		// Nothing changes: what is known stays known, and no check more is made.
		f.install(healthy)
		synctest.Wait()
		f.wantStates("down up")
		if f.apps[0].checked() != checks {
			t.Error("a reload that changes nothing begins the health checks anew")
		}
		// Something changes: what is known of an address goes on.
		f.install(func(r *access.Route) {
			healthy(r)
			r.Timeout = access.Duration(time.Minute + time.Second)
		})
		f.wantStates("down up")
		if got := f.door.Upstreams()[0].Targets[0].Since; !got.Equal(since) {
			t.Errorf("down since %s, before the reload since %s", got, since)
		}
		// The checks before have ended: the pace stays the same.
		checks = f.apps[1].checked()
		time.Sleep(100 * time.Second)
		if n := f.apps[1].checked() - checks; n < 8 || n > 12 {
			t.Errorf("%d checks in 100 seconds", n)
		}
		// No checks any more: nothing is known by them any more.
		f.install(nil)
		checks = f.apps[0].checked()
		f.wantStates("up up")
		time.Sleep(time.Hour)
		if f.apps[0].checked() != checks {
			t.Error("health checks go on that nobody asks for")
		}
	})
}

func TestAnUpstreamThatFailsIsLeftOut(t *testing.T) {
	for _, broken := range []fault{refusing, cutting, overdone, silent} {
		t.Run(fmt.Sprint("fault ", broken), func(t *testing.T) {
			inFleet(t, 2, func(r *access.Route) { r.Timeout = access.Duration(4 * time.Second) }, func(f *fleet) {
				f.apps[0].becomes(broken)
				for f.states() == "up up" {
					f.ask("GET", "/", nil)
				}
				f.wantStates("ejected up")
				if at := f.door.Upstreams()[0].Targets[0]; at.LastError == "" || at.Failures != defaultEjectAfter || at.Ejections != 1 || at.EjectedFor != defaultEjectFor {
					t.Errorf("%+v", at)
				}
				if got := f.gets(10); got["7002"] != 10 {
					t.Error(got)
				}
				// Each time it is longer, and one failure suffices, until five minutes.
				for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
					time.Sleep(want*time.Second - time.Millisecond)
					f.wantStates("ejected up")
					time.Sleep(time.Millisecond)
					f.wantStates("up up")
					for i := 0; f.states() == "up up"; i++ {
						f.ask("GET", "/", nil)
						if n := f.door.Upstreams()[0].Targets[0].Failures; n > 1 || i > 1000 {
							t.Fatalf("%d failures, %d requests", n, i)
						}
					}
				}
				if a, b := f.logged("left out"), f.logged("used again"); a != 8 || b != 7 {
					t.Errorf("the log says %d times that it is left out, %d times that it is used again", a, b)
				}
				f.apps[0].becomes(well)
				time.Sleep(300 * time.Second)
				f.gets(200)
				f.wantStates("up up")
				time.Sleep(time.Minute)
				if got := f.gets(10); got["7001"] != 5 {
					t.Error(got)
				}
				// It was well for long: back to the beginning.
				time.Sleep(longestEject)
				f.apps[0].becomes(broken)
				for i := 0; f.states() == "up up" && i < 1000; i++ {
					f.ask("GET", "/", nil)
				}
				if at := f.door.Upstreams()[0].Targets[0]; at.EjectedFor != defaultEjectFor {
					t.Errorf("%+v", at)
				}
			})
		})
	}
}

// How requests end that were sent before an address was left out says nothing
// about it afterwards.
func TestOldFailuresSayNothing(t *testing.T) {
	inFleet(t, 2, nil, func(f *fleet) {
		f.apps[0].becomes(silent)
		for range 10 {
			go f.ask("GET", "/", nil) // half of them hang for a minute
		}
		synctest.Wait()
		time.Sleep(45 * time.Second)
		f.apps[0].mu.Lock()
		f.apps[0].fault = refusing // those that hang go on
		f.apps[0].mu.Unlock()
		f.gets(2 * defaultEjectAfter)
		f.wantStates("ejected up")
		f.apps[0].becomes(well)
		time.Sleep(defaultEjectFor)
		f.wantStates("up up") // doubtful: one failure would suffice
		time.Sleep(10 * time.Second)
		f.wantStates("up up")
		if at := f.door.Upstreams()[0].Targets[0]; at.Open != 0 || at.Failures != 0 || at.Ejections != 1 {
			t.Errorf("%+v", at)
		}
	})
}

func TestNeverMoreThanHalfAreLeftOut(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2} {
		inFleet(t, n, nil, func(f *fleet) {
			for _, a := range f.apps {
				a.becomes(refusing)
			}
			f.gets(40)
			if got := strings.Count(f.states(), "ejected"); got != want {
				t.Errorf("of %d that fail, %d are left out, want %d: %s", n, got, want, f.states())
			}
			if got := strings.Count(f.states(), "failing"); got != n-want {
				t.Errorf("of %d: %s", n, f.states())
			}
			if got := f.logged("is used all the same"); got != n-want {
				t.Errorf("the log says it %d times", got)
			}
			// They answer again, so they are well.
			for _, a := range f.apps {
				a.becomes(well)
			}
			f.gets(40)
			if got := strings.Count(f.states(), "failing"); got != 0 {
				t.Error(f.states())
			}
			if got := f.logged("answers again"); got != n-want {
				t.Errorf("the log says it %d times", got)
			}
		})
	}
}

// What a visitor can bring about alone does not take an address from others.
func TestErrorsOfTheApplicationEjectNothing(t *testing.T) {
	inFleet(t, 2, nil, func(f *fleet) {
		for _, a := range f.apps {
			a.set(func(a *fakeApp) { a.answer = always(500) })
		}
		f.gets(100)
		f.wantStates("up up")
	})
	inFleet(t, 2, func(r *access.Route) { r.Upstream.Eject.After = -1 }, func(f *fleet) {
		f.apps[0].becomes(refusing)
		if got := f.gets(100); got["7002"] != 100 {
			t.Error(got)
		}
		f.wantStates("up up")
	})
}
