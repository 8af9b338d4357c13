package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"
)

// BenchmarkDoor is a whole allowed request to an upstream over loopback, with
// identity, decision, signed assertion and event; `bare` is the standard
// library's ReverseProxy in the same run, with no check at all and the same
// transport settings. The figure to quote is x-bare, the ratio of the two.
func BenchmarkDoor(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer up.Close()
	d := New(Options{Signer: newTestSigner(b), Recorder: nullRecorder{}})
	entry := routeTo("http://app.example", up)
	if err := d.Swap(&Snapshot{Version: "v1", Routes: table(b, entry), Policy: policy(allowAll), Identify: identify{}}); err != nil {
		b.Fatal(err)
	}
	target, err := url.Parse(up.URL)
	if err != nil {
		b.Fatal(err)
	}
	bare := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}
	w := &nullWriter{http.Header{}}
	ask := func(handler http.Handler) {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Host = "app.example"
		clear(w.h)
		handler.ServeHTTP(w, r)
	}
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ask(bare)
		}
	})
	b.Run("doorward", func(b *testing.B) { inTurns(b, func() { ask(d) }, func() { ask(bare) }, "x-bare") })
}

// inTurns measures one thing, and reports how its time compares with another's.
// The two take turns, so that both see the same machine.
func inTurns(b *testing.B, one, other func(), unit string) {
	b.ReportAllocs()
	var ones, others time.Duration
	for b.Loop() {
		start := time.Now()
		one()
		ones += time.Since(start)
		b.StopTimer()
		start = time.Now()
		other()
		others += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(ones.Seconds()/others.Seconds(), unit)
}
