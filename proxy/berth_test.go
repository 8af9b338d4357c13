package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// keeper is a Recorder that keeps what it must not keep.
type keeper struct {
	event  *access.Event
	panics bool
}

func (k *keeper) Record(e *access.Event) {
	if k.event = e; k.panics {
		panic("a bug in what records")
	}
}

func (k *keeper) Err() error { return nil }

// Whatever somebody else may know is not given to another request.
func TestOnlyWhatNobodyKnowsIsUsedAgain(t *testing.T) {
	var door *Door
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/signal":
			door.Signal(access.Signal{})
		case "/reload":
			if err := door.Swap(door.live.Load().Snapshot); err != nil {
				t.Error(err)
			}
		case "/broken":
			panic(http.ErrAbortHandler)
		}
		io.Copy(w, r.Body)
		io.WriteString(w, "answered")
	}))
	defer app.Close()
	for name, c := range map[string]struct {
		path, body string
		header     http.Header
		route      func(*access.Route)
		door       func(*Door)
		panics     bool
		again      bool
	}{
		"a page":                {path: "/", again: true},
		"nobody":                {path: "/", header: http.Header{}},
		"a body":                {path: "/", body: "posted"},
		"a signal":              {path: "/signal"},
		"another configuration": {path: "/reload"},
		"a broken answer":       {path: "/broken"},
		"a page of our own":     {path: access.PortalPath},
		"two targets":           {path: "/", route: func(r *access.Route) { r.To = append(r.To, strings.Replace(r.To[0], "127.0.0.1", "localhost", 1)) }},
		"another client":        {path: "/", route: func(r *access.Route) { r.Upstream.Client = standardClient }},
		"a recorder's bug":      {path: "/", panics: true},
		"a trace":               {path: "/", door: func(d *Door) { d.tracer = &traceNotes{} }},
		"an upgrade":            {path: "/", header: http.Header{"Cookie": {"doorward=alice"}, "Connection": {"upgrade"}, "Upgrade": {"websocket"}}, route: func(r *access.Route) { r.WebSocket = true }},
	} {
		kept := &keeper{panics: c.panics}
		route := routeTo("http://app.example", app)
		if c.route != nil {
			c.route(&route)
		}
		door = New(Options{Signer: newTestSigner(t), Recorder: kept})
		if c.door != nil {
			c.door(door)
		}
		if err := door.Swap(&Snapshot{Version: "v1", Routes: table(t, route), Policy: policy(loginFirst), Identify: identify{}}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ask := func() (again bool) {
			r := httptest.NewRequest("GET", c.path, strings.NewReader(c.body))
			if c.body != "" {
				r.Method = "POST"
			}
			r.Host, r.Header = "app.example", c.header.Clone()
			if r.Header == nil {
				r.Header = http.Header{"Cookie": {"doorward=alice"}}
			}
			defer func() {
				recover() // what the recorder has done
				again = kept.event.Kind == ""
			}()
			door.ServeHTTP(httptest.NewRecorder(), r)
			return
		}
		if ask() {
			t.Errorf("%s: used again, though it has dialled", name)
		}
		if again := ask(); again != c.again {
			t.Errorf("%s: used again: %t", name, again)
		}
		door.Close()
	}
}

// Many visitors at once, and everybody's requests, answers and records are their own.
func TestNoRequestHasWhatIsAnothers(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Who", r.Header.Get("X-Who"))
		fmt.Fprint(w, r.URL.Path, " ", r.Header.Get("X-Request-Id"), " ", len(r.Header))
	}))
	defer app.Close()
	route := routeTo("http://app.example", app)
	route.Headers = map[string]string{"X-Who": "sub"}
	w := newWorld(t, []access.Route{route})
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() { // others look at what is open meanwhile
		for {
			select {
			case <-stop:
				return
			default:
				w.door.Signal(access.Signal{Session: "s-visitor-1"})
				w.door.OpenStreams("s-visitor-2")
				time.Sleep(time.Millisecond)
			}
		}
	})
	const visitors, requests = 8, 100
	var asking sync.WaitGroup
	for v := range visitors {
		asking.Go(func() {
			way, name := w.transport(), fmt.Sprintf("visitor-%d", v)
			for i := range requests {
				path, fields := fmt.Sprintf("/%s/%d", name, i), 0
				r, _ := http.NewRequest("GET", "http://app.example"+path, nil)
				r.Header = http.Header{"Cookie": {"doorward=" + name}}
				if v%2 == 0 {
					r.Header.Set("X-More", name)
					fields++
				}
				res, err := way.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				said := strings.Fields(string(body))
				if err != nil || len(said) != 3 || said[0] != path || res.Header.Get("Who") != name || said[2] != fmt.Sprint(7+fields) {
					t.Errorf("%s as %s: %v %q as %q, %v", path, name, res.StatusCode, body, res.Header.Get("Who"), err)
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	all.Wait()
	seen := map[string]bool{}
	for range visitors * requests {
		e := w.rec.event(t)
		name := e.Request.Identity.Subject
		if e.Kind != access.EventDecision || e.Decision.Outcome != access.Allow || e.Response.Status != 200 || e.Request.Session.ID != "s-"+name ||
			!strings.HasPrefix(e.Request.Path, "/"+name+"/") || seen[e.Request.Path] || e.Request.ID != e.RequestID {
			t.Errorf("%s: %+v %+v %+v", e.Kind, e.Request, e.Decision, e.Response)
		}
		seen[e.Request.Path] = true
	}
}
