package devicecheck

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func fleet(n int) string {
	var s strings.Builder
	s.WriteString("[")
	for i := range n {
		fmt.Fprintf(&s, `{"id":"device-%d","serial":"%08x","name":"Laptop %d","owner":"user%d@example.com","managed":true,"compliant":true,`+
			`"disk_encrypted":"yes","jailbroken":false,"os":"macOS","os_version":"15.%d","last_seen":"2026-11-23T08:00:00Z"},`+"\n", i, i+1, i, i, i%9)
	}
	return strings.TrimSuffix(s.String(), ",\n") + "]"
}

func BenchmarkLoad50000JSON(b *testing.B) {
	text := []byte(fleet(50_000))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		builder := newBuilder("f", "")
		readJSON(builder, text)
		if _, err := builder.done(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad50000CSV(b *testing.B) {
	builder := newBuilder("f", "")
	readJSON(builder, []byte(fleet(50_000)))
	text := renderCSV(builder.inv.devices)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		builder := newBuilder("f", "")
		readCSV(builder, text)
		if _, err := builder.done(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLargeFleetFits: 50,000 devices, with the room for the next reading beside
// them, stay well below 100 MB.
func TestLargeFleetFits(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s := jsonSource(t, "corp", fleet(50_000))
	before := heap()
	i := newInspector(t, Options{Config: Config{Sources: []Source{s}, Match: []string{"claim.id"}}, Keep: &cellar{}})
	held := int64(heap()) - int64(before)
	t.Logf("50,000 devices hold %.1f MB", float64(held)/1e6)
	if i.sources[0].state.Load().size() != 50_000 || held > 100e6 {
		t.Errorf("%d bytes for %d devices", held, i.sources[0].state.Load().size())
	}
}

// BenchmarkKeep50000 packs a snapshot, and BenchmarkLoadKept50000 begins with one.
func BenchmarkKeep50000(b *testing.B) {
	inv := manyDevices(b)
	for b.Loop() {
		packed, err := pack(inv)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(packed)), "bytes")
	}
}

func BenchmarkLoadKept50000(b *testing.B) {
	packed, err := pack(manyDevices(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := unpack(bytes.NewReader(packed), ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChanges50000 compares two readings that differ in one device.
func BenchmarkChanges50000(b *testing.B) {
	old, next := manyDevices(b), manyDevices(b)
	next.devices[31415].Compliant = access.No
	for b.Loop() {
		if signals, all := changes(old, next); len(signals) != 1 || all {
			b.Fatal(signals, all)
		}
	}
}

func manyDevices(b *testing.B) *inventory {
	builder := newBuilder("f", "")
	readJSON(builder, []byte(fleet(50_000)))
	inv, err := builder.done()
	if err != nil {
		b.Fatal(err)
	}
	return inv
}

func BenchmarkLookup(b *testing.B) {
	i := newInspector(b, Options{Config: Config{Sources: []Source{jsonSource(b, "corp", fleet(50_000))}, Match: []string{"claim.id"}}})
	states := []*state{i.sources[0].state.Load()}
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := lookup(states, idKey, "device-31415"); d == nil {
			b.Fatal("not found")
		}
	}
}

func BenchmarkInspectByClaim(b *testing.B) {
	i := newInspector(b, Options{Config: Config{Sources: []Source{jsonSource(b, "corp", fleet(50_000))}, Match: []string{"certificate.serial", "claim.id"}}})
	r, req := &http.Request{}, claiming(map[string]any{"id": "device-31415"})
	b.ReportAllocs()
	for b.Loop() {
		if i.Inspect(r, req); req.Device.Known != access.Yes {
			b.Fatal("not found")
		}
	}
}

func BenchmarkInspectByCertificate(b *testing.B) {
	root := newCA(b, "Device CA")
	i := newInspector(b, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{jsonSource(b, "corp", fleet(50_000))}, Match: []string{"certificate.serial", "claim.id"},
	}})
	r, req := presenting(root.issue(b, leafOf("x", 31415))), claiming(nil)
	b.ReportAllocs()
	for b.Loop() {
		if i.Inspect(r, req); req.Device.Known != access.Yes {
			b.Fatalf("%+v", req.Device)
		}
	}
}

func TestInspectAllocatesNothing(t *testing.T) {
	root := newCA(t, "Device CA")
	i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "a", "serial": "05"}]`)}, Match: []string{"certificate.serial", "claim.id"},
	}})
	r, req := presenting(root.issue(t, leafOf("x", 5))), claiming(map[string]any{"id": "a"})
	if n := testing.AllocsPerRun(100, func() { i.Inspect(r, req) }); n != 0 || req.Device.Known != access.Yes || req.Device.Problem != "" {
		t.Errorf("%v allocations, %+v", n, req.Device)
	}
}
