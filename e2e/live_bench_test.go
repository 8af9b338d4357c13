package e2e

import (
	"bufio"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// BenchmarkIdleWebSocket is what an open WebSocket costs that says nothing: five
// thousand of them through the real program. The figures are per WebSocket, with
// what the garbage collector has not yet taken back of opening them.
func BenchmarkIdleWebSocket(b *testing.B) {
	const sockets = 5000
	pages := &board{}
	f := startFleetOf(b, 1, "{store: {memory: true}}", pages.serve, func(text string) string {
		return strings.Replace(text, "headers: {X-User: user}", "headers: {X-User: user}, websocket: true, limits: {identity: {streams: -1}}", 1)
	})
	alice := f.visitor(func() int { return 0 })
	alice.login(f.at("app", "/"), "alice")
	before := gauges(b, f.replicas[0].admin)
	w := f.openWall(alice, sockets)
	eventually(b, "everything to be open", func() bool { return pages.count() == sockets })
	after := gauges(b, f.replicas[0].admin)
	per := func(names ...string) (sum float64) {
		for _, name := range names {
			sum += after[name] - before[name]
		}
		return sum / sockets
	}
	for b.Loop() {
		runtime.KeepAlive(w)
	}
	b.ReportMetric(per("process_resident_memory_bytes"), "B-resident/socket")
	b.ReportMetric(per("go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes"), "B-heap+stack/socket")
	b.ReportMetric(per("go_goroutines"), "goroutines/socket")
	b.ReportMetric(per("process_open_fds"), "fds/socket")
	for _, conn := range w.conns {
		conn.Close(websocket.StatusNormalClosure, "")
	}
}

// gauges reads the metrics that have no labels.
func gauges(t testing.TB, admin string) map[string]float64 {
	t.Helper()
	res, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = n
		}
	}
	return values
}
