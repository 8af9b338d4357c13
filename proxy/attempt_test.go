package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestWhatMayBeSentTwice(t *testing.T) {
	for _, c := range []struct {
		method  string
		body    string
		headers []string
		fault   fault
		sent    int // to both together
		status  int
	}{
		{method: "GET", fault: cutting, sent: 2, status: 200},
		{method: "HEAD", fault: cutting, sent: 2, status: 200},
		{method: "OPTIONS", fault: cutting, sent: 2, status: 200},
		{method: "GET", body: "body", fault: cutting, sent: 1, status: 502},
		{method: "POST", body: "body", fault: cutting, sent: 1, status: 502},
		{method: "POST", fault: cutting, sent: 1, status: 502},
		{method: "POST", headers: []string{"Idempotency-Key", "x"}, fault: cutting, sent: 1, status: 502},
		{method: "PUT", fault: cutting, sent: 1, status: 502},
		{method: "DELETE", fault: cutting, sent: 1, status: 502},
		{method: "PATCH", body: "body", fault: cutting, sent: 1, status: 502},
		// An answer that has begun is the answer.
		{method: "GET", fault: halving, sent: 1},
		{method: "GET", fault: overdone, sent: 1, status: 503},
		// Nobody had it yet.
		{method: "POST", body: "body", fault: refusing, sent: 1, status: 200},
		{method: "POST", fault: refusing, sent: 1, status: 200},
		{method: "POST", body: "body", fault: vanished, sent: 1, status: 200},
		{method: "DELETE", fault: refusing, sent: 1, status: 200},
	} {
		inFleet(t, 2, nil, func(f *fleet) {
			f.ask("GET", "/", nil) // the next one begins at the first
			f.apps[0].taken()
			f.apps[1].taken()
			f.apps[0].becomes(c.fault)
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			o := f.ask(c.method, "/x", body, c.headers...)
			sent := append(f.apps[0].taken(), f.apps[1].taken()...)
			if len(sent) != c.sent || c.status != 0 && o.status != c.status || o.broken != (c.fault == halving) {
				t.Errorf("%s %q %v, the first one %d: sent %v, %+v", c.method, c.body, c.headers, c.fault, sent, o)
			}
		})
	}
}

// net/http repeats requests by itself where it reuses a connection that breaks.
func TestNothingIsSentTwiceOverConnectionsThatBreak(t *testing.T) {
	for _, header := range [][]string{nil, {"Idempotency-Key", "x"}, {"X-Idempotency-Key", "x"}} {
		for _, n := range []int{1, 2} {
			inFleet(t, n, nil, func(f *fleet) {
				f.gets(n) // leaves connections to reuse
				synctest.Wait()
				for _, a := range f.apps {
					a.taken()
					a.set(func(a *fakeApp) { a.fault = cutting })
				}
				f.ask("POST", "/", nil, header...)
				sent := 0
				for _, a := range f.apps {
					sent += len(a.taken())
				}
				if sent != 1 {
					t.Errorf("%v: sent %d times", header, sent)
				}
			})
		}
	}
}

// However many addresses there are, a request that somebody may have had is sent
// to one more.
func TestNothingIsSentThreeTimes(t *testing.T) {
	inFleet(t, 4, nil, func(f *fleet) {
		for _, a := range f.apps {
			a.becomes(cutting)
		}
		for i := range 8 {
			f.ask("GET", fmt.Sprint("/", i), nil)
		}
		seen := map[string]int{}
		for _, a := range f.apps {
			for _, what := range a.taken() {
				seen[what]++
			}
		}
		for what, n := range seen {
			if n != 2 {
				t.Errorf("%s was sent %d times", what, n)
			}
		}
		// Addresses that had nothing do not count.
		f.apps[0].becomes(refusing)
		f.apps[1].becomes(refusing)
		f.apps[2].becomes(refusing)
		f.apps[3].becomes(well)
		if o := f.ask("POST", "/", strings.NewReader("body")); o.status != 200 || len(f.apps[3].taken()) != 1 {
			t.Errorf("%+v", o)
		}
	})
}

// greedy is a transport that has read of the body when it says that nothing was
// sent.
type greedy struct{ asked int }

func (g *greedy) RoundTrip(req *http.Request) (*http.Response, error) {
	g.asked++
	io.ReadFull(req.Body, make([]byte, 1))
	return nil, &dialError{io.ErrUnexpectedEOF}
}

func (g *greedy) CloseIdleConnections() {}

func TestABodyThatIsNotWholeIsNotSent(t *testing.T) {
	inFleet(t, 2, nil, func(f *fleet) {
		g := &greedy{}
		for _, u := range f.door.live.Load().upstreams {
			u.transport = g
		}
		if o := f.ask("POST", "/", strings.NewReader("body")); o.status != 502 || g.asked != 1 {
			t.Errorf("asked %d times, %+v", g.asked, o)
		}
	})
}

func TestABodyThatWasBegunGoesNowhereElse(t *testing.T) {
	u := &upload{ReadCloser: io.NopCloser(strings.NewReader("body"))}
	if !u.untouched() {
		t.Error("nothing was read")
	}
	if n, err := u.Read(make([]byte, 8)); n != 0 || err == nil {
		t.Error("the try before reads what belongs to the next one")
	}
	u = &upload{ReadCloser: io.NopCloser(strings.NewReader("body"))}
	u.Read(make([]byte, 1))
	if u.untouched() {
		t.Error("a byte is gone")
	}
}

func TestTheAllowanceForSendingTwice(t *testing.T) {
	sent := func(f *fleet, n int) (twice int) {
		for range n {
			f.ask("GET", "/", nil)
		}
		for _, a := range f.apps {
			twice += len(a.taken())
		}
		return twice - n
	}
	all := func(f *fleet) {
		for _, a := range f.apps {
			a.becomes(cutting)
		}
	}
	noEject := func(r *access.Route) { r.Upstream.Eject.After = -1 }
	inFleet(t, 2, noEject, func(f *fleet) {
		all(f)
		if n := sent(f, 100); n < allowanceFloor+15 || n > allowanceFloor+20 {
			t.Errorf("of 100 requests that failed, %d were sent again", n)
		}
		if got := f.door.Upstreams()[0].Repeated; got == 0 {
			t.Error("nobody counts")
		}
		time.Sleep(allowanceWindow)
		if n := sent(f, 10); n != 10 {
			t.Errorf("in the next window %d of 10 were sent again", n)
		}
	})
	inFleet(t, 2, func(r *access.Route) { noEject(r); r.Upstream.RetryPercent = -1 }, func(f *fleet) {
		all(f)
		if n := sent(f, 20); n != 0 {
			t.Errorf("%d were sent again", n)
		}
		f.apps[0].becomes(refusing)
		f.apps[1].becomes(well)
		if got := f.gets(10); got["7002"] != 10 { // not twice, just elsewhere
			t.Error(got)
		}
	})
}

func TestNothingIsTriedForVisitorsWhoLeft(t *testing.T) {
	inFleet(t, 2, nil, func(f *fleet) {
		for _, a := range f.apps {
			a.becomes(silent)
		}
		ctx, cancel := context.WithCancel(f.t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://app.example/", nil)
		time.AfterFunc(time.Second, cancel)
		f.send(req)
		synctest.Wait()
		e := f.rec.event(t)
		if e.Response.Reason != access.ClientGone {
			t.Errorf("%+v", e.Response)
		}
		for _, at := range f.door.Upstreams()[0].Targets {
			if at.Failures != 0 || at.Open != 0 || at.LastError != "" {
				t.Errorf("%+v", at) // it is not the upstream's fault
			}
		}
	})
}

func TestNobodyWaitsLongerThanTheTimeout(t *testing.T) {
	const limit = 7 * time.Second
	for n := 1; n <= 3; n++ {
		for _, method := range []string{"GET", "POST"} {
			for fault, reason := range map[fault]access.Reason{silent: access.UpstreamTimeout, vanished: "", refusing: access.UpstreamUnreachable} {
				inFleet(t, n, func(r *access.Route) { r.Timeout = access.Duration(limit) }, func(f *fleet) {
					for _, a := range f.apps {
						a.becomes(fault)
					}
					var body io.Reader
					if method == "POST" {
						body = strings.NewReader(strings.Repeat("x", 1<<20)) // which nobody reads
					}
					o := f.ask(method, "/", body)
					// Who is still sending may see the connection break before the answer.
					e := f.rec.event(t).Response
					// An end that comes while a connection is just being used is noticed a little later.
					if o.after > limit+10*time.Millisecond || e.Status/100 != 5 || reason != "" && e.Reason != reason {
						t.Errorf("%d targets, %s, fault %d: %+v %+v", n, method, fault, o, e)
					}
				})
			}
		}
	}
}

// A slow visitor is no slow upstream.
func TestUploadsTakeAsLongAsTheyTake(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Timeout = access.Duration(5 * time.Second) }, func(f *fleet) {
		slowly, write := io.Pipe()
		go func() {
			for range 10 {
				time.Sleep(20 * time.Second)
				io.WriteString(write, "x")
			}
			write.Close()
		}()
		if o := f.ask("POST", "/", slowly); o.status != 200 || o.after != 200*time.Second {
			t.Errorf("%+v", o)
		}
		// The time counts from the last of the body.
		for _, a := range f.apps {
			a.set(func(a *fakeApp) {
				a.answer = func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }
			})
		}
		slowly, write = io.Pipe()
		go func() {
			time.Sleep(20 * time.Second)
			write.Close()
		}()
		if o := f.ask("POST", "/", slowly); o.status != 504 || o.after < 24*time.Second || o.after > 26*time.Second {
			t.Errorf("%+v", o)
		}
	})
}

func TestTryTimeout(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) { r.Upstream.TryTimeout = access.Duration(2 * time.Second) }, func(f *fleet) {
		f.ask("GET", "/", nil)
		f.apps[0].becomes(silent)
		if o := f.ask("GET", "/", nil); o.status != 200 || o.after != 2*time.Second || o.body != f.apps[1].name {
			t.Errorf("%+v", o)
		}
		f.ask("GET", "/", nil)
		// It cannot be sent again, so it gets the whole time.
		f.ask("GET", "/", nil)
		if o := f.ask("POST", "/", strings.NewReader("x")); o.after != 0 && o.after != defaultTimeout {
			t.Errorf("%+v", o)
		}
		// An answer that took long to come stays whole, and takes as long as it likes.
		f.apps[0].becomes(well)
		f.apps[1].becomes(well)
		for _, a := range f.apps {
			a.set(func(a *fakeApp) {
				a.answer = func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second)
					http.NewResponseController(w).Flush()
					time.Sleep(30 * time.Second)
					io.WriteString(w, "whole")
				}
			})
		}
		if o := f.ask("GET", "/", nil); o.body != "whole" || o.broken || o.after != 31*time.Second {
			t.Errorf("%+v", o)
		}
	})
}

// Where nobody else is well, nothing is taken away from one that is slow.
func TestNobodyIsHurriedForNothing(t *testing.T) {
	inFleet(t, 2, func(r *access.Route) {
		healthy(r)
		r.Upstream.TryTimeout = access.Duration(2 * time.Second)
	}, func(f *fleet) {
		f.apps[1].set(func(a *fakeApp) { a.sick = true })
		time.Sleep(time.Minute)
		f.wantStates("up down")
		f.apps[0].set(func(a *fakeApp) {
			a.answer = func(w http.ResponseWriter, r *http.Request) { time.Sleep(3 * time.Second) }
		})
		if o := f.ask("GET", "/", nil); o.status != 200 || o.after != 3*time.Second {
			t.Errorf("%+v", o)
		}
		f.apps[0].becomes(cutting)
		if o := f.ask("GET", "/", nil); o.status != 502 || len(f.apps[1].taken()) != 0 {
			t.Errorf("%+v", o)
		}
		// But nobody had this one.
		f.apps[0].becomes(refusing)
		if o := f.ask("GET", "/", nil); o.status != 200 || o.body != f.apps[1].name {
			t.Errorf("%+v", o)
		}
	})
}

func TestAnAnswerThatStopsInTheMiddleIsBrokenOff(t *testing.T) {
	inFleet(t, 1, func(r *access.Route) { r.Timeout = access.Duration(10 * time.Second) }, func(f *fleet) {
		f.apps[0].becomes(stalling)
		o := f.ask("GET", "/", nil)
		if !o.broken || o.after < 10*time.Second || o.after > 13*time.Second {
			t.Errorf("%+v", o)
		}
		if e := f.rec.event(t); e.Response.Reason != access.UpstreamTimeout || e.Response.Status != 200 {
			t.Errorf("%+v", e.Response)
		}
		if at := f.door.Upstreams()[0].Targets[0]; !strings.Contains(at.LastError, "body_timeout") || at.Open != 0 {
			t.Errorf("%+v", at)
		}
		// Nobody knows how long this one is: it may be a stream.
		f.apps[0].becomes(well)
		pause := func(media string) {
			f.apps[0].set(func(a *fakeApp) {
				a.answer = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", media)
					io.WriteString(w, "data: 1\n\n")
					http.NewResponseController(w).Flush()
					select {
					case <-time.After(time.Hour):
						io.WriteString(w, "data: 2\n\n")
					case <-r.Context().Done():
					}
				}
			})
		}
		for _, media := range []string{"text/plain", "text/event-stream"} {
			pause(media)
			if o := f.ask("GET", "/", nil); o.broken || o.body != "data: 1\n\ndata: 2\n\n" {
				t.Errorf("%s: %+v", media, o)
			}
		}
		f.install(func(r *access.Route) { r.Upstream.BodyTimeout = access.Duration(time.Minute) })
		for media, broken := range map[string]bool{"text/plain": true, "text/event-stream": false} {
			pause(media)
			if o := f.ask("GET", "/", nil); o.broken != broken {
				t.Errorf("with body_timeout, %s: %+v", media, o)
			}
		}
	})
}

// A flapping, a hanging and a half-dead upstream, and one that is well, under
// traffic of all kinds: nobody waits longer than the limits say, the one that is
// well carries on, and nothing that changes something is sent twice.
func TestTroubledUpstreamsHarmNobody(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			balance := []string{"round_robin", "least_requests", "session"}[seed%3]
			const timeout, try = 8 * time.Second, 2 * time.Second
			inFleet(t, 4, func(r *access.Route) {
				r.Timeout = access.Duration(timeout)
				r.Upstream = access.Upstream{Balance: balance, TryTimeout: access.Duration(try)}
				r.Upstream.Eject.MaxPercent = 75
				if seed >= 3 {
					r.Upstream.Health = access.HealthCheck{Path: "/healthz", Interval: access.Duration(5 * time.Second)}
				}
			}, func(f *fleet) {
				stop := make(chan struct{})
				go func() { // the first one flaps
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(500+random.IntN(4000)) * time.Millisecond):
							f.apps[0].becomes([]fault{refusing, well, cutting, well}[i%4])
						}
					}
				}()
				f.apps[1].becomes(silent)
				f.apps[2].becomes(halving)
				go func() {
					for _, half := range []fault{cutting, stalling, overdone, halving} {
						time.Sleep(20 * time.Second)
						f.apps[2].becomes(half)
					}
				}()
				const requests = 600
				results := make(chan outcome, requests)
				for i := range requests {
					method := []string{"GET", "POST", "DELETE"}[i%3]
					go func() {
						var body io.Reader
						if method == "POST" {
							body = strings.NewReader("body")
						}
						results <- f.ask(method, fmt.Sprint("/", i), body, "Cookie", fmt.Sprint("doorward=person-", i%40))
					}()
					time.Sleep(150 * time.Millisecond)
				}
				good, late := 0, 0
				for i := range requests {
					o := <-results
					// A body may stop for as long again, and is found within two rounds.
					if o.after > 2*timeout+2*roundTime+time.Second {
						t.Errorf("a visitor waited %s: %+v", o.after, o)
					}
					if o.status == 200 && !o.broken {
						good++
						if i > requests/2 && o.after > try {
							late++
						}
					}
				}
				close(stop)
				seen := map[string]int{}
				for _, a := range f.apps {
					for _, what := range a.taken() {
						seen[what]++
					}
				}
				for what, n := range seen { // net/http repeats a GET once more if it reuses a connection that breaks
					if get := strings.HasPrefix(what, "GET "); n > 3 || !get && n > 1 {
						t.Errorf("%s was sent %d times", what, n)
					}
				}
				t.Logf("%s: %d of %d good, %d of them late", balance, good, requests, late)
				if good < requests*70/100 {
					t.Errorf("%d of %d requests were answered", good, requests)
				}
				for _, at := range f.door.Upstreams()[0].Targets {
					if at.Unanswered != 0 || at.Waiting != 0 {
						t.Errorf("%+v", at)
					}
				}
				if got := f.gets(20); !slices.Contains([]int{0, 1, 2}, got["502"]+got["504"]) && balance != "session" {
					t.Errorf("in the end %v", got)
				}
			})
		})
	}
}
