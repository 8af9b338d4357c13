package devicecheck

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// direct hands requests to a vendor without a network, so that only the clock of
// the test's bubble moves.
type direct struct{ *testidp.Inventory }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	in := httptest.NewRequest(r.Method, r.URL.String(), nil)
	in.Header = r.Header
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		in.Body = io.NopCloser(bytes.NewReader(body))
	}
	answer := httptest.NewRecorder()
	d.ServeHTTP(answer, in)
	return answer.Result(), nil
}

// A device that stops being compliant, or is gone, is so at the door within one
// interval, whatever the vendor; a vendor that is down is noticed within one, and
// its facts keep the age they have.
func TestChangesAreSeenWithinOneInterval(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &vendor{t: t, kind: kind, url: "http://127.0.0.1:1"}
				v.Inventory = testidp.NewInventory(kind, time.Now)
				good := func(id string) access.Device {
					d := healthy(id)
					d.SeenAt = time.Now()
					return d
				}
				v.Set(good("a"), good("b"), good("c"))
				s := v.source()
				s.Refresh = access.Duration(time.Minute)
				i, _ := running(t, Options{
					Config:    Config{Sources: []Source{s}, Match: []string{"claim.id"}},
					Transport: direct{v.Inventory}, Rand: func() float64 { return 0 },
				})
				synctest.Wait()
				if d := known(t, i, "a"); !v.praised(&d) {
					t.Fatalf("%+v", d)
				}
				bad := good("a")
				bad.Compliant, bad.Risk = access.No, access.RiskHigh
				v.Set(bad, good("c"))
				time.Sleep(time.Minute)
				synctest.Wait()
				if d := known(t, i, "a"); v.praised(&d) || d.Known != access.Yes {
					t.Errorf("after one interval: %+v", d)
				}
				if d := known(t, i, "b"); d.Known != access.No {
					t.Errorf("after one interval, a device that is gone: %+v", d)
				}
				read := time.Now()
				v.Always(testidp.Throttles(http.StatusInternalServerError, ""))
				time.Sleep(time.Minute)
				synctest.Wait()
				if d := known(t, i, "c"); !v.praised(&d) || !d.ObservedAt.Equal(read) || !d.SourceFailingSince.Equal(read.Add(time.Minute)) {
					t.Errorf("while the vendor is down: %+v", d)
				}
				v.Always(nil)
				time.Sleep(time.Minute)
				synctest.Wait()
				if d := known(t, i, "c"); !d.SourceFailingSince.IsZero() || !d.ObservedAt.Equal(read.Add(2*time.Minute)) {
					t.Errorf("when it is back: %+v", d)
				}
			})
		})
	}
}
