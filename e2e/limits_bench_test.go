package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What others notice of an identity that sends a hundred times what it may: the
// 99th percentile of their requests through the real program, without it and with
// it, in rounds by turns. The third figure is the same crowd at a door without
// limits: what they are for. Run it alone: the machine is shared with those who
// ask.
//
//	go test ./e2e -run XXX -bench NoisyIdentity -benchtime 30x
func BenchmarkNoisyIdentity(b *testing.B) {
	const (
		allowed = 10            // requests per second of one identity
		noise   = 100 * allowed // of the noisy one
		others  = 16
		round   = time.Second
	)
	app := func(w http.ResponseWriter, r *http.Request) { // some work for an answer, as applications do
		until := time.Now().Add(200 * time.Microsecond)
		for time.Now().Before(until) {
		}
		fmt.Fprintf(w, "<p>hello %s</p>", r.Header.Get("X-User"))
	}
	guarded := newCrowd(b, fmt.Sprintf("{identity: {rate: %d/s}}", allowed), others, app)
	open := newCrowd(b, "{identity: {concurrent: -1}}", others, app)

	var quiet, noisy, unlimited []time.Duration
	sent, refused := 0, 0
	cpu := 0.0 // of the door, for the noise
	for b.Loop() {
		began := guarded.cpu(b)
		quiet = append(quiet, guarded.round(b, round, allowed, 0)...)
		between := guarded.cpu(b)
		noisy = append(noisy, guarded.round(b, round, allowed, noise)...)
		cpu += guarded.cpu(b) - between - (between - began)
		sent, refused = sent+guarded.sent, refused+guarded.refused
		unlimited = append(unlimited, open.round(b, round, allowed, noise)...)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	before, after, without := percentile(quiet, 99), percentile(noisy, 99), percentile(unlimited, 99)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(percentile(quiet, 50)), "ms-p50-quiet")
	b.ReportMetric(ms(percentile(noisy, 50)), "ms-p50-noisy")
	b.ReportMetric(ms(before), "ms-p99-quiet")
	b.ReportMetric(ms(after), "ms-p99-noisy")
	b.ReportMetric(ms(without), "ms-p99-unlimited")
	b.ReportMetric(float64(after)/float64(before), "x-quiet")
	b.ReportMetric(float64(sent)/float64(b.N)/round.Seconds(), "noise/s")
	b.ReportMetric(float64(refused)/float64(max(sent, 1)), "refused")
	b.ReportMetric(cpu/float64(max(refused, 1))*1e6, "µs-cpu/refusal")
	if log, err := os.ReadFile(filepath.Join(guarded.door.dir, "audit.jsonl")); err == nil {
		b.ReportMetric(float64(len(log))/float64(max(1, bytes.Count(log, []byte("\n")))), "B/record")
	}
}

func percentile(list []time.Duration, p int) time.Duration {
	slices.Sort(list)
	return list[(len(list)-1)*p/100]
}

// crowd asks one doorward: a noisy identity, and others who keep to their rate.
// They are machines, since those need no login.
type crowd struct {
	door          *site
	noisy         string   // as it is sent
	others        []string // of each
	sent, refused int      // by the noisy one, in the last round
}

func newCrowd(b *testing.B, limits string, others int, app http.HandlerFunc) *crowd {
	f := startFleetOf(b, 1, "{store: {memory: true}}", app, func(text string) string {
		return strings.NewReplacer("server: {", "server: {limits: "+limits+", ",
			"client_secret: {file: secret}", "client_secret: {file: secret}, audiences: [api]",
			"any_user: true}", "any_user: true}, {name: machines, client_ids: ['corp:bench']}").Replace(text)
	})
	c := &crowd{door: f.replicas[0]}
	request := func(name string) string {
		header, now := f.provider.Header(), time.Now().Unix()
		header["typ"] = "at+jwt"
		token, err := f.provider.Sign(header, map[string]any{"iss": f.provider.Issuer(), "sub": name, "client_id": "bench", "aud": "api",
			"jti": rand.Text(), "iat": now, "exp": now + 3600})
		if err != nil {
			b.Fatal(err)
		}
		at, _ := url.Parse(f.at("app", "/"))
		return fmt.Sprintf("GET /page HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", at.Host, token)
	}
	c.noisy = request("noisy")
	for i := range others {
		c.others = append(c.others, request(fmt.Sprint("machine-", i)))
	}
	return c
}

// cpu is the processor time that the door has used, in seconds.
func (c *crowd) cpu(b *testing.B) float64 {
	return gauges(b, c.door.admin)["process_cpu_seconds_total"]
}

// round lets the others ask at nearly the rate that is allowed, and the noisy one
// at its own, and returns how long each of the others' requests took. Requests
// are sent when they are due: one that waits for a slow answer counts from when
// it was due.
func (c *crowd) round(b *testing.B, length time.Duration, rate, noise int) []time.Duration {
	var (
		mu    sync.Mutex
		times []time.Duration
		wg    sync.WaitGroup
		over  atomic.Bool
	)
	c.sent, c.refused = 0, 0
	const lines = 8 // connections of the noisy one
	for range lines {
		if noise == 0 {
			break
		}
		wg.Go(func() {
			sent, refused := 0, 0
			err := c.ask(c.noisy, time.Second*lines/time.Duration(noise), length, func(status string, _ time.Duration) {
				sent++
				if status == "429" {
					refused++
				}
			})
			mu.Lock()
			defer mu.Unlock()
			c.sent, c.refused = c.sent+sent, c.refused+refused
			if err != nil {
				over.Store(true)
				b.Error(err)
			}
		})
	}
	for _, request := range c.others {
		wg.Go(func() {
			err := c.ask(request, time.Second/time.Duration(rate-1), length, func(status string, took time.Duration) {
				if status != "200" {
					b.Errorf("somebody else got %s", status)
				}
				mu.Lock()
				defer mu.Unlock()
				times = append(times, took)
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if b.Failed() || over.Load() {
		b.FailNow()
	}
	return times
}

// ask sends a request over one connection whenever one is due, and tells of every
// answer. It spends little on it, so that the door has the machine.
func (c *crowd) ask(request string, every, length time.Duration, answered func(status string, took time.Duration)) error {
	conn, err := net.Dial("tcp", c.door.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for due, end := time.Now(), time.Now().Add(length); due.Before(end); due = due.Add(every) {
		time.Sleep(time.Until(due))
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		status, _, _ := strings.Cut(res.Status, " ")
		answered(status, time.Since(due))
	}
	return nil
}
