package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	out := `Running 2s test @ http://127.0.0.1:11001/
  1 threads and 64 connections
  2 requests in 2.00s, 4KB read

{"requests":50000,"duration":2000000,"bytes":55000000,"errors":3,"refused":0,"p50":1210,"p99":9000}
`
	s, err := parseWrk([]byte(out), 1024)
	want := sample{requests: 50000, failed: 3, elapsed: 2 * time.Second, bytes: 55000000, p50: 1210 * time.Microsecond, p99: 9 * time.Millisecond}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	for _, broken := range []string{"", "unable to connect", strings.Replace(out, `"requests":50000`, `"requests":0`, 1), strings.Replace(out, `"errors":3`, `"errors":5000`, 1)} {
		if _, err := parseWrk([]byte(broken), 1024); err == nil {
			t.Errorf("accepted: %q", broken)
		}
	}
}

func TestParseH2load(t *testing.T) {
	out := `finished in 2.00s, 2000.00 req/s, 2.13MB/s
requests: 4000 total, 4064 started, 4000 done, 4000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 4.27MB (4481808) total, 208.00KB (212992) headers (space savings 48.51%), 3.91MB (4096000) data
`
	var log strings.Builder
	for i := range 100 {
		log.WriteString("1700000000\t200\t" + strconv.Itoa(100*(100-i)) + "\n")
	}
	log.WriteString("1700000000\t-1\t1\n")
	s, err := parseH2load([]byte(out), []byte(log.String()), 1024)
	want := sample{requests: 4000, elapsed: 2 * time.Second, bytes: 4096000, p50: 5100 * time.Microsecond, p99: 10 * time.Millisecond}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	for _, broken := range []string{"", strings.Replace(out, "4000 succeeded", "3000 succeeded", 1), strings.Replace(out, "0 errored", "900 errored", 1),
		strings.Replace(out, "(4096000)", "(400)", 1), strings.Replace(out, "finished in 2.00s", "finished in soon", 1)} {
		if _, err := parseH2load([]byte(broken), []byte(log.String()), 1024); err == nil {
			t.Errorf("accepted:\n%s", broken)
		}
	}
	if _, err := parseH2load([]byte(out), nil, 1024); err == nil {
		t.Error("no answer was logged, and there are percentiles")
	}
}

// A process, its worker and one that has nothing to do with them.
func TestUsageCountsDescendants(t *testing.T) {
	proc := t.TempDir()
	add := func(pid, parent int, name string, user, system, children int, pss string) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		text := strconv.Itoa(pid) + " (" + name + ") S " + strconv.Itoa(parent) + " 1 1 0 -1 4194560 100 0 0 0 " +
			strconv.Itoa(user) + " " + strconv.Itoa(system) + " " + strconv.Itoa(children) + " 1 20 0 1 0 100 1000 10\n"
		for file, text := range map[string]string{"stat": text, "smaps_rollup": "00400000-7ffe000 ---p 00000000 00:00 0 [rollup]\nRss: 4000 kB\nPss:                " + pss + " kB\nPss_Dirty: 1 kB\n"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(10, 1, "nginx: master) (x", 100, 50, 7, "1000")
	add(11, 10, "nginx", 300, 20, 0, "500")
	add(12, 11, "helper", 1, 1, 0, "24")
	add(13, 1, "somebody else", 9999, 9999, 0, "9999")
	u, err := usageOf(proc, 10)
	if err != nil || u.cpu != (100+50+7+1+300+20+1+1+1+1)*clockTick || u.memory != 1524<<10 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := usageOf(proc, 99); err == nil {
		t.Error("a process that is gone has used something")
	}
}

func TestParseProcRefusesOtherTexts(t *testing.T) {
	for _, text := range []string{"", "1 (x", "1 (x) S 1 2 3", "1 (x) S one 1 1 0 -1 0 0 0 0 0 1 1 1 1 1", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 1 many 1 1 1"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("accepted: %q", text)
		}
	}
	for _, text := range []string{"", "Rss: 1 kB", "Pss: 1 MB", "Pss: x kB"} {
		if _, err := parsePss([]byte(text)); err == nil {
			t.Errorf("accepted: %q", text)
		}
	}
	if got := cpuModel([]byte("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"), "?"); got != "AMD EPYC" {
		t.Error(got)
	}
}
