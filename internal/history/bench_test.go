package history

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"
)

// BenchmarkReplay decides a generated log again and prints records per second
// and the most memory that was in use. DOORWARD_RECORDS sets the size of the log;
// the goal is a million in a minute on two processors, within 500 MB.
func BenchmarkReplay(b *testing.B) {
	records := 20_000
	if n, err := strconv.Atoi(os.Getenv("DOORWARD_RECORDS")); err == nil {
		records = n
	}
	w := smallWorld(b, (records+4*90-1)/(4*90))
	cfg := w.config()
	next := w.config("groups: [dev, ops, sales]", "groups: [dev, ops, hr]")
	files := w.log(cfg)
	runtime.GC()
	for _, c := range []struct {
		name    string
		changes bool
	}{{"same", false}, {"changed", true}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(files.Size)
			most, stop := watchMemory()
			decisions := 0
			for b.Loop() {
				against := cfg
				if c.changes {
					against = next
				}
				r := replay(b, files, against, Filter{})
				if decisions = r.Log.Decisions; (len(r.Changes) > 0) != c.changes || r.Same == 0 {
					b.Fatalf("%+v", r)
				}
			}
			close(stop)
			b.ReportMetric(float64(decisions)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(decisions), "records")
			b.ReportMetric(<-most/(1<<20), "MB-peak")
		})
	}
}

// watchMemory reports the most memory the Go runtime held from the system.
func watchMemory() (most chan float64, stop chan struct{}) {
	most, stop = make(chan float64, 1), make(chan struct{})
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		peak := 0.0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			peak = max(peak, float64(sample[0].Value.Uint64()-sample[1].Value.Uint64()))
			select {
			case <-stop:
				most <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return most, stop
}
