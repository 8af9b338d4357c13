package devicecheck

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/doorward/doorward/internal/access"
)

const responderAddress = "http://ocsp.example/"

// responder answers questions about certificates of an authority, signed with
// key, which belongs to cert.
type responder struct {
	t         testing.TB
	authority *ca
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	now       func() time.Time
	// statuses holds what differs from good. change spoils an answer.
	statuses sync.Map
	change   func(*ocsp.Response)
}

// say sets the status of a certificate.
func (r *responder) say(serial int64, status int) { r.statuses.Store(serial, status) }

func newResponder(t testing.TB, authority *ca, now func() time.Time) *responder {
	return &responder{t: t, authority: authority, cert: authority.cert, key: authority.key, now: now}
}

func (r *responder) answer(serial *ocsp.Request) []byte {
	status, _ := r.statuses.LoadOrStore(serial.SerialNumber.Int64(), ocsp.Good)
	template := ocsp.Response{
		SerialNumber: serial.SerialNumber, Status: status.(int), ThisUpdate: r.now(), NextUpdate: r.now().Add(time.Hour),
		IssuerHash: serial.HashAlgorithm, RevokedAt: r.now(),
	}
	if r.cert != r.authority.cert {
		template.Certificate = r.cert
	}
	if r.change != nil {
		r.change(&template)
	}
	der, err := ocsp.CreateResponse(r.authority.cert, r.cert, template, r.key)
	if err != nil {
		r.t.Error(err)
	}
	return der
}

func (r *responder) serve(req *http.Request) (int, []byte) {
	var question []byte
	var err error
	if req.Method == http.MethodPost && req.Header.Get("Content-Type") == "application/ocsp-request" {
		question, err = io.ReadAll(req.Body)
	} else {
		var text string
		if text, err = url.PathUnescape(path.Base(req.URL.EscapedPath())); err == nil {
			question, err = base64.StdEncoding.DecodeString(text)
		}
	}
	if err != nil {
		r.t.Error(err)
		return 400, nil
	}
	asked, err := ocsp.ParseRequest(question)
	if err != nil {
		r.t.Error(err)
		return 400, nil
	}
	return 200, r.answer(asked)
}

// appointed returns a certificate that root issues for use, with its key.
func appointed(t testing.TB, root *ca, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	template := leafOf("Responder", 900)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	return sign(t, template, root.cert, key, root.key), key
}

func TestRevokedByResponder(t *testing.T) {
	root := newCA(t, "Device CA")
	good, revoked, unknown := root.issue(t, leafOf("laptop-1", 5)), root.issue(t, leafOf("laptop-2", 6)), root.issue(t, leafOf("laptop-3", 7))
	naming := leafOf("laptop-1", 5)
	naming.OCSPServer = []string{"http://169.254.169.254/", responderAddress}
	named := root.issue(t, naming)
	for name, cfg := range map[string]OCSP{
		"by POST": {URL: responderAddress}, "by GET": {URL: responderAddress, Get: true}, "that the certificate names": {Hosts: []string{"ocsp.example"}},
	} {
		s, r := &webServer{}, newResponder(t, root, func() time.Time { return noon })
		r.say(6, ocsp.Revoked)
		r.say(7, ocsp.Unknown)
		s.set("ocsp.example", r.serve)
		i, _ := revoking(t, root, Revocation{OCSP: cfg}, s)
		if cfg.URL == "" {
			if got := problemAt(t, i, noon, named); got != "" {
				t.Errorf("%s: %q", name, got)
			}
			if got := problemAt(t, i, noon, good); got != access.DeviceCertStatusUnknown {
				t.Errorf("%s, which it does not: %q", name, got)
			}
			continue
		}
		for range 3 {
			for cert, want := range map[*x509.Certificate]access.Reason{good: "", revoked: access.DeviceCertRevoked, unknown: access.DeviceCertStatusUnknown} {
				if got := problemAt(t, i, noon, cert); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		}
		total := 0
		for address, n := range s.asked {
			if total += n; !strings.HasPrefix(address, responderAddress) {
				t.Errorf("%s was asked", address)
			}
		}
		if total != 3 {
			t.Errorf("%s: %d questions about three certificates", name, total)
		}
		if status := i.Revocations(); len(status) != 1 || status[0].ID != "ocsp.example" || status[0].Type != "ocsp" || status[0].Err != "" || !status[0].ObservedAt.Equal(noon) {
			t.Errorf("%+v", status)
		}
	}
}

// Whoever stands in between can answer what they like; only the authority and
// whom it appointed are believed.
func TestRespondersThatLie(t *testing.T) {
	root, stranger := newCA(t, "Device CA"), newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	deviceKey := newKey(t)
	device := sign(t, leafOf("laptop-9", 9), root.cert, deviceKey, root.key)
	sibling := root.below(t, caOf("Another CA of the root"))
	for name, c := range map[string]struct {
		change func(*responder)
		want   access.Reason
		err    string
	}{
		"the authority itself": {func(*responder) {}, "", ""},
		"an appointed responder": {func(r *responder) {
			r.cert, r.key = appointed(t, root, nil)
		}, "", ""},
		"the authority, with its certificate": {func(r *responder) { r.change = func(a *ocsp.Response) { a.Certificate = root.cert } }, "", ""},
		"without an end":                      {func(r *responder) { r.change = func(a *ocsp.Response) { a.NextUpdate = time.Time{} } }, "", ""},
		"a device":                            {func(r *responder) { r.cert, r.key = device, deviceKey }, access.DeviceCertStatusUnknown, "not for OCSP"},
		"an authority below":                  {func(r *responder) { r.cert, r.key = sibling.cert, sibling.key }, access.DeviceCertStatusUnknown, "not for OCSP"},
		"a responder whose time is over": {func(r *responder) {
			r.cert, r.key = appointed(t, root, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) })
		}, access.DeviceCertStatusUnknown, "not valid now"},
		"a responder whose time has not come": {func(r *responder) {
			r.cert, r.key = appointed(t, root, func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) })
		}, access.DeviceCertStatusUnknown, "not valid now"},
		"a responder of somebody else": {func(r *responder) {
			r.cert, r.key = appointed(t, stranger, nil)
		}, access.DeviceCertStatusUnknown, "has not appointed"},
		"somebody of the authority's name": {func(r *responder) { r.key = stranger.key }, access.DeviceCertStatusUnknown, "signature of the authority"},
		"about the same serial of another CA": {func(r *responder) {
			r.cert, r.key = appointed(t, root, nil)
			r.authority = newCA(t, "Other CA")
		}, access.DeviceCertStatusUnknown, "about another certificate"},
		"about another certificate": {func(r *responder) {
			r.change = func(a *ocsp.Response) { a.SerialNumber = device.SerialNumber }
		}, access.DeviceCertStatusUnknown, "about another certificate"},
		"an answer that has ended": {func(r *responder) {
			r.change = func(a *ocsp.Response) { a.ThisUpdate, a.NextUpdate = noon.Add(-2*time.Hour), noon }
		}, access.DeviceCertStatusUnknown, "ended"},
		"an answer of the future": {func(r *responder) {
			r.change = func(a *ocsp.Response) { a.ThisUpdate = noon.Add(ahead + time.Second) }
		}, access.DeviceCertStatusUnknown, "from the future"},
	} {
		s, r := &webServer{}, newResponder(t, root, func() time.Time { return noon })
		c.change(r)
		s.set("ocsp.example", r.serve)
		i, _ := revoking(t, root, Revocation{OCSP: OCSP{URL: responderAddress}}, s)
		if got := problemAt(t, i, noon, leaf); got != c.want {
			t.Errorf("%s: %q, want %q (%s)", name, got, c.want, i.Revocations()[0].Err)
		}
		if err := i.Revocations()[0].Err; c.err == "" && err != "" || !strings.Contains(err, c.err) {
			t.Errorf("%s: %q", name, err)
		}
	}
	for name, body := range map[string][]byte{
		"nothing": nil, "rubbish": []byte("<html>"), "try later": ocsp.TryLaterErrorResponse, "not authorised": ocsp.UnauthorizedErrorResponse, "too much": make([]byte, maxAnswer+1),
	} {
		s := &webServer{}
		s.set("ocsp.example", fixed(body))
		i, _ := revoking(t, root, Revocation{OCSP: OCSP{URL: responderAddress}}, s)
		if got := problemAt(t, i, noon, leaf); got != access.DeviceCertStatusUnknown || i.Revocations()[0].Err == "" {
			t.Errorf("%s: %q %+v", name, got, i.Revocations())
		}
	}
}

// A responder that was appointed and then revoked is believed no more.
func TestRevokedResponder(t *testing.T) {
	root := newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	s, r := &webServer{}, newResponder(t, root, func() time.Time { return noon })
	r.cert, r.key = appointed(t, root, nil)
	r.say(5, ocsp.Revoked) // a lie, so that the list would not cover it up
	s.set("ocsp.example", r.serve)
	s.set("http://pki.example/crl", fixed(root.list(t, 1, noon, time.Hour, nil, 900)))
	i, _ := revoking(t, root, Revocation{CRLs: []string{"http://pki.example/crl"}, OCSP: OCSP{URL: responderAddress}}, s)
	if got := problemAt(t, i, noon, leaf); got != "" {
		t.Errorf("%q", got)
	}
}

// Either source may know of a revocation, and one of them is enough to vouch.
func TestListAndResponderTogether(t *testing.T) {
	root := newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	for _, c := range []struct {
		listed []int64
		dead   bool
		status int
		want   access.Reason
	}{
		{nil, false, ocsp.Good, ""},
		{[]int64{5}, false, ocsp.Good, access.DeviceCertRevoked},
		{nil, false, ocsp.Revoked, access.DeviceCertRevoked},
		{nil, false, ocsp.Unknown, ""},
		{nil, true, 0, ""},
		{[]int64{5}, true, 0, access.DeviceCertRevoked},
	} {
		s, r := &webServer{}, newResponder(t, root, func() time.Time { return noon })
		r.say(5, c.status)
		if !c.dead {
			s.set("ocsp.example", r.serve)
		}
		s.set("http://pki.example/crl", fixed(root.list(t, 1, noon, time.Hour, nil, c.listed...)))
		i, _ := revoking(t, root, Revocation{CRLs: []string{"http://pki.example/crl"}, OCSP: OCSP{URL: responderAddress}}, s)
		if got := problemAt(t, i, noon, leaf); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Nobody waits for a responder but the first request with a certificate, and
// that one not for long. Answers are renewed ahead of need while the certificate
// is in use.
func TestAnswersAreRenewedAheadOfNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		root := newCAAt(t, "Device CA", start)
		leaf := root.issue(t, leafAt("laptop-1", 5, start))
		s, r := &webServer{}, newResponder(t, root, time.Now)
		answer := func(req *http.Request) (int, []byte) {
			select { // it is slow
			case <-time.After(time.Second):
			case <-req.Context().Done():
			}
			return r.serve(req)
		}
		s.set("ocsp.example", answer)
		signals := make(chan access.Signal, 10)
		i, _ := running(t, Options{ClientCAs: root.pool(), Transport: s, Signal: func(s access.Signal) { signals <- s }, Config: Config{
			Match: []string{"certificate.serial"}, Certificates: Certificates{Revocation: Revocation{
				OCSP: OCSP{URL: responderAddress}, Refresh: access.Duration(10 * time.Minute), OnUnavailable: access.OnUnavailable{UseLastKnown: access.Duration(30 * time.Minute)},
			}}}})
		request := func() (access.Reason, time.Duration) {
			began := time.Now()
			got := problemAt(t, i, began, leaf)
			return got, time.Since(began)
		}
		if got, took := request(); got != "" || took != time.Second {
			t.Fatalf("the first request: %q after %v", got, took)
		}
		for range 4 * 60 {
			time.Sleep(time.Minute)
			if got, took := request(); got != "" || took != 0 {
				t.Fatalf("a later request: %q after %v", got, took)
			}
		}
		if n := s.count(responderAddress); n < 24 || n > 30 {
			t.Errorf("asked %d times in four hours", n)
		}

		r.say(5, ocsp.Revoked)
		time.Sleep(10*time.Minute + 10*time.Second)
		if got, took := request(); got != access.DeviceCertRevoked || took != 0 {
			t.Fatalf("one refresh after the revocation: %q after %v", got, took)
		}
		if s := <-signals; s != (access.Signal{Reason: access.DeviceCertRevoked}) {
			t.Errorf("%+v", s)
		}
		r.say(5, ocsp.Good)
		time.Sleep(10*time.Minute + 10*time.Second)
		if got, _ := request(); got != "" {
			t.Fatalf("when it was lifted: %q", got)
		}

		// The responder dies. Its last answer counts for an hour, and for half an
		// hour more; nobody waits for it meanwhile.
		s.set("ocsp.example", nil)
		last := i.revocation.answers.byCertificate[answerKey{idOf(root.cert), "\x05"}].last.Load().until
		for time.Now().Before(last.Add(29 * time.Minute)) {
			time.Sleep(time.Minute)
			if got, took := request(); got != "" || took != 0 {
				t.Fatalf("%v before the end: %q after %v", time.Until(last), got, took)
			}
		}
		time.Sleep(time.Until(last.Add(30 * time.Minute)))
		if got, took := request(); got != "" || took != 0 {
			t.Errorf("at the end: %q after %v", got, took)
		}
		time.Sleep(time.Second)
		if got, took := request(); got != access.DeviceCertStatusUnknown || took != 0 {
			t.Errorf("a second later: %q after %v", got, took)
		}

		// It comes back, and so does the device, within moments.
		s.set("ocsp.example", answer)
		time.Sleep(soonest + 3*time.Second)
		if got, took := request(); got != "" || took != 0 {
			t.Errorf("with a responder again: %q after %v", got, took)
		}

		// A certificate that nobody uses is not asked about. Who comes back with it
		// after a day waits once more.
		before := s.count(responderAddress)
		time.Sleep(24 * time.Hour)
		if n := s.count(responderAddress) - before; n > 7 {
			t.Errorf("asked %d times about a certificate that nobody uses", n)
		}
		if got, took := request(); got != "" || took != time.Second {
			t.Errorf("after a day: %q after %v", got, took)
		}
		time.Sleep(20 * time.Minute)
		if got, took := request(); got != "" || took != 0 {
			t.Errorf("it is in use again: %q after %v", got, took)
		}
	})
}

// A responder that never answers holds up the first request for three seconds
// and no other one.
func TestResponderThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		root := newCAAt(t, "Device CA", start)
		s := &webServer{}
		s.set("ocsp.example", func(req *http.Request) (int, []byte) { <-req.Context().Done(); return 0, nil })
		i := newInspector(t, Options{ClientCAs: root.pool(), Transport: s, Now: time.Now, Config: Config{
			Certificates: Certificates{Revocation: Revocation{OCSP: OCSP{URL: responderAddress}}}}})
		leaf := root.issue(t, leafAt("laptop-1", 5, start))
		for n, want := range []time.Duration{firstWait, firstWait, firstWait, statusTimeout - 3*firstWait, 0, 0} {
			began := time.Now()
			if got := problemAt(t, i, began, leaf); got != access.DeviceCertStatusUnknown || time.Since(began) != want {
				t.Errorf("request %d: %q after %v, want %v", n, got, time.Since(began), want)
			}
		}
		if n := s.count(responderAddress); n != 1 {
			t.Errorf("%d questions about one certificate", n)
		}
		// A visitor who leaves is not waited for.
		other := root.issue(t, leafAt("laptop-2", 6, start))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		req := claiming(nil)
		req.Time = began
		if got := inspect(t, i, presenting(other).WithContext(ctx), req); got.Problem != access.DeviceCertStatusUnknown || time.Since(began) != 0 {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
		// Many certificates at once do not become many questions at once.
		for n := range int64(2 * maxAtOnce) {
			go problemAt(t, i, time.Now(), root.issue(t, leafAt("x", 100+n, start)))
		}
		synctest.Wait()
		if n := s.count(responderAddress); n > 1+maxAtOnce {
			t.Errorf("%d questions at once", n)
		}
		time.Sleep(time.Minute)
	})
}

// Once something is known about a certificate, asking costs nothing.
func TestRevocationAllocatesNothing(t *testing.T) {
	i, chain := warmRevocation(t, 100)
	r, req := presenting(chain...), claiming(nil)
	if n := testing.AllocsPerRun(100, func() { i.Inspect(r, req) }); n != 0 || req.Device.Known != access.Yes || req.Device.Problem != "" {
		t.Errorf("%v allocations, %+v", n, req.Device)
	}
}

func BenchmarkInspectWithRevocation(b *testing.B) {
	i, chain := warmRevocation(b, 100_000)
	r, req := presenting(chain...), claiming(nil)
	b.ReportAllocs()
	for b.Loop() {
		if i.Inspect(r, req); req.Device.Known != access.Yes {
			b.Fatalf("%+v", req.Device)
		}
	}
}

// warmRevocation returns an Inspector that has a list of so many certificates
// and an answer about the one that is returned.
func warmRevocation(t testing.TB, listed int) (*Inspector, []*x509.Certificate) {
	root := newCA(t, "Device CA")
	revoked := make([]int64, listed)
	for n := range revoked {
		revoked[n] = int64(1000 + n)
	}
	s, r := &webServer{}, newResponder(t, root, func() time.Time { return noon })
	s.set("ocsp.example", r.serve)
	s.set("http://pki.example/crl", fixed(root.list(t, 1, noon, time.Hour, nil, revoked...)))
	i, _ := revoking(t, root, Revocation{CRLs: []string{"http://pki.example/crl"}, OCSP: OCSP{URL: responderAddress}}, s)
	chain := one(root.issue(t, leafOf("laptop-1", 5)))
	if got := problemAt(t, i, noon, chain...); got != "" {
		t.Fatal(got)
	}
	return i, chain
}
