package devicecheck

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// list makes a revocation list that counts from the time at for as long as d.
func (c *ca) list(t testing.TB, number int64, at time.Time, d time.Duration, change func(*x509.RevocationList), serials ...int64) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: at, NextUpdate: at.Add(d)}
	for _, serial := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: at})
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// put replaces a file by a complete one.
func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// revoking returns an Inspector that learns about the certificates of root as cfg
// says, and the clock that it and its requests go by.
func revoking(t testing.TB, root *ca, cfg Revocation, transport http.RoundTripper) (*Inspector, *time.Time) {
	now := noon
	i := newInspector(t, Options{ClientCAs: root.pool(), Authorities: one(root.cert), Transport: transport,
		Now: func() time.Time { return now }, Config: Config{
			Sources:      []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "serial": "05", "managed": true}]`)},
			Match:        []string{"certificate.serial"},
			Certificates: Certificates{Revocation: cfg},
		}})
	return i, &now
}

// problemAt returns why the certificate does not count at a time.
func problemAt(t testing.TB, i *Inspector, at time.Time, chain ...*x509.Certificate) access.Reason {
	t.Helper()
	req := claiming(nil)
	req.Time = at
	d := inspect(t, i, presenting(chain...), req)
	if d.Problem != "" && (d.Known != access.Unknown || d.Managed != access.Unknown || d.ByCertificate != access.Unknown || d.ProvenID() != "") {
		t.Errorf("facts in spite of %s: %+v", d.Problem, d)
	}
	return d.Problem
}

func TestRevokedByList(t *testing.T) {
	root := newCA(t, "Device CA")
	good, revoked := root.issue(t, leafOf("laptop-1", 5)), root.issue(t, leafOf("laptop-2", 6))
	der := root.list(t, 1, noon, time.Hour, nil, 6, 7)
	for name, data := range map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}),
	} {
		path := filepath.Join(t.TempDir(), "devices.crl")
		put(t, path, data)
		i, _ := revoking(t, root, Revocation{CRLs: []string{path}}, nil)
		for range 2 { // the second answer comes from memory
			if got := problemAt(t, i, noon, good); got != "" {
				t.Errorf("%s: a good certificate: %q", name, got)
			}
			if got := problemAt(t, i, noon, revoked); got != access.DeviceCertRevoked {
				t.Errorf("%s: a revoked certificate: %q", name, got)
			}
		}
		// The record says which certificate it was.
		if d := inspect(t, i, presenting(revoked), claiming(nil)); d.Certificate.Serial != "06" {
			t.Errorf("%s: %+v", name, d)
		}
		status := i.Revocations()
		if len(status) != 1 || status[0].Revoked != 2 || status[0].Err != "" || !status[0].NextUpdate.Equal(noon.Add(time.Hour)) || !status[0].ObservedAt.Equal(noon) {
			t.Errorf("%+v", status)
		}
	}
}

// The verdict on a certificate is kept; what a newer list says of it counts at
// once all the same.
func TestRevocationTakesEffectWithTheList(t *testing.T) {
	root := newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	path := filepath.Join(t.TempDir(), "devices.crl")
	put(t, path, root.list(t, 1, noon, time.Hour, nil))
	i, now := revoking(t, root, Revocation{CRLs: []string{path}}, nil)
	read := func() bool { return i.revocation.read(t.Context(), i.revocation.lists[0]) }
	if got := problemAt(t, i, noon, leaf); got != "" {
		t.Fatal(got)
	}
	put(t, path, root.list(t, 2, noon.Add(time.Second), time.Hour, nil, 5))
	if !read() || problemAt(t, i, noon, leaf) != access.DeviceCertRevoked {
		t.Fatal("the certificate outlives its revocation")
	}
	// Neither a list from before, nor one by nobody, nor rubbish, nor no list at
	// all brings it back.
	stranger := newCA(t, "Device CA")
	for name, data := range map[string][]byte{
		"the list before":      root.list(t, 1, noon, time.Hour, nil),
		"an older number":      root.list(t, 1, noon.Add(2*time.Second), time.Hour, nil),
		"a stranger's list":    stranger.list(t, 3, noon.Add(2*time.Second), time.Hour, nil),
		"another authority":    newCA(t, "Other CA").list(t, 3, noon.Add(2*time.Second), time.Hour, nil),
		"a list of the future": root.list(t, 3, noon.Add(time.Hour), time.Hour, nil),
		"rubbish":              []byte("<html>"),
		"nothing":              nil,
	} {
		put(t, path, data)
		if read() || problemAt(t, i, noon, leaf) != access.DeviceCertRevoked {
			t.Errorf("%s brings the certificate back", name)
		}
		if s := i.Revocations()[0]; s.Err == "" || s.FailingSince.IsZero() || s.Revoked != 1 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	*now = noon.Add(time.Minute)
	put(t, path, root.list(t, 4, noon.Add(time.Minute), time.Hour, nil)) // a hold was lifted
	if !read() || problemAt(t, i, noon.Add(time.Minute), leaf) != "" || i.Revocations()[0].Err != "" {
		t.Errorf("%+v", i.Revocations())
	}
}

// A list of an authority that nobody knows yet says nothing, and keeps no other
// list out. In a file, the operator may also change to another authority.
func TestListsOfUnknownAuthorities(t *testing.T) {
	root, other := newCA(t, "Device CA"), newCA(t, "Other CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	path := filepath.Join(t.TempDir(), "devices.crl")
	const address = "http://pki.example/devices.crl"
	for _, source := range []string{path, address} {
		s := &webServer{}
		give := func(data []byte) { put(t, path, data); s.set(address, fixed(data)) }
		give(other.list(t, 9, noon.Add(time.Minute), time.Hour, nil))
		i, _ := revoking(t, root, Revocation{CRLs: []string{source}}, s)
		if got := problemAt(t, i, noon, leaf); got != access.DeviceCertStatusUnknown {
			t.Errorf("%s: %q", source, got)
		}
		give(root.list(t, 1, noon, time.Hour, nil))
		if !i.revocation.read(t.Context(), i.revocation.lists[0]) || problemAt(t, i, noon, leaf) != "" {
			t.Errorf("%s: the list of an unknown authority keeps the good one out: %+v", source, i.Revocations())
		}
		i.revocation.meet(other.cert)
		give(other.list(t, 9, noon, time.Hour, nil))
		changed := i.revocation.read(t.Context(), i.revocation.lists[0])
		want := map[string]access.Reason{path: access.DeviceCertStatusUnknown, address: ""}[source]
		if got := problemAt(t, i, noon, leaf); changed != (source == path) || got != want {
			t.Errorf("%s: another authority: %q", source, got)
		}
	}
}

// What a list says counts until its own end and as much longer as is configured,
// to the second; that something is revoked counts for ever.
func TestListsCountUntilTheirEnd(t *testing.T) {
	root := newCA(t, "Device CA")
	long := leafOf("laptop-1", 5)
	long.NotAfter = noon.AddDate(0, 6, 0)
	gone := leafOf("laptop-2", 6)
	gone.NotAfter = long.NotAfter
	good, revoked := root.issue(t, long), root.issue(t, gone)
	path := filepath.Join(t.TempDir(), "devices.crl")
	put(t, path, root.list(t, 1, noon, time.Hour, nil, 6))
	for _, more := range []time.Duration{0, 4 * time.Hour} {
		i, _ := revoking(t, root, Revocation{CRLs: []string{path}, OnUnavailable: access.OnUnavailable{UseLastKnown: access.Duration(more)}}, nil)
		if err := os.Remove(path); err != nil { // the source is dead from here on
			t.Fatal(err)
		}
		i.revocation.read(t.Context(), i.revocation.lists[0])
		for after, want := range map[time.Duration]access.Reason{
			0: "", time.Hour + more: "", time.Hour + more + time.Second: access.DeviceCertStatusUnknown, 30 * 24 * time.Hour: access.DeviceCertStatusUnknown,
		} {
			if got := problemAt(t, i, noon.Add(after), good); got != want {
				t.Errorf("use_last_known %v, after %v: %q, want %q", more, after, got, want)
			}
			if got := problemAt(t, i, noon.Add(after), revoked); got != access.DeviceCertRevoked {
				t.Errorf("use_last_known %v, after %v: a revoked certificate: %q", more, after, got)
			}
		}
		put(t, path, root.list(t, 1, noon, time.Hour, nil, 6))
	}
}

// Of what nothing was ever heard, nothing counts, whatever may count afterwards.
func TestWithoutAnyListNothingCounts(t *testing.T) {
	root := newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	path := filepath.Join(t.TempDir(), "devices.crl")
	lastKnown := access.OnUnavailable{UseLastKnown: access.Duration(1000 * time.Hour)}
	i, _ := revoking(t, root, Revocation{CRLs: []string{path}, OnUnavailable: lastKnown}, nil)
	if got := problemAt(t, i, noon, leaf); got != access.DeviceCertStatusUnknown {
		t.Error(got)
	}
	put(t, path, root.list(t, 1, noon, time.Hour, nil))
	i.revocation.read(t.Context(), i.revocation.lists[0])
	if got := problemAt(t, i, noon, leaf); got != "" {
		t.Error(got)
	}
	// Another authority's list says nothing about this one's certificates.
	put(t, path, newCA(t, "Other CA").list(t, 1, noon, time.Hour, nil))
	i, _ = revoking(t, root, Revocation{CRLs: []string{path}, OnUnavailable: lastKnown}, nil)
	if got := problemAt(t, i, noon, leaf); got != access.DeviceCertStatusUnknown {
		t.Error(got)
	}
}

func extension(id asn1.ObjectIdentifier, value any) pkix.Extension {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: id, Critical: true, Value: der}
}

// point is an issuing distribution point with raw fields.
func point(fields ...asn1.RawValue) pkix.Extension {
	var body []byte
	for _, f := range fields {
		der, err := asn1.Marshal(f)
		if err != nil {
			panic(err)
		}
		body = append(body, der...)
	}
	return extension(oidIssuingPoint, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
}

func onlyFlag(tag int) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte{0xff}}
}

func uriPoint(address string) asn1.RawValue {
	uri, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: uriName, Bytes: []byte(address)})
	full, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: uri})
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: full}
}

func TestListsThatAreNotUnderstoodAreRefused(t *testing.T) {
	root := newCA(t, "Device CA")
	with := func(extensions ...pkix.Extension) []byte {
		return root.list(t, 1, noon, time.Hour, func(l *x509.RevocationList) { l.ExtraExtensions = extensions }, 5)
	}
	entry := func(e pkix.Extension) []byte {
		return root.list(t, 1, noon, time.Hour, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{e}
		}, 5)
	}
	plain := with()
	armoured := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: plain})
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"a delta list":              {with(extension(oidDeltaIndicator, big.NewInt(1))), "delta list"},
		"an indirect list":          {with(point(onlyFlag(4))), "indirect list"},
		"entries of another issuer": {entry(extension(oidCertificateIssuer, []int{1})), "indirect list"},
		"some reasons only":         {with(point(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, Bytes: []byte{6, 0x40}})), "some reasons only"},
		"attribute certificates":    {with(point(onlyFlag(5))), "attribute certificates"},
		"neither users nor CAs":     {with(point(onlyFlag(1), onlyFlag(2))), "no certificate at all"},
		"a point without address":   {with(point(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{0xa0, 2, 0x82, 0}})), "has no address"},
		"a relative point":          {with(point(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{0xa1, 0}})), "relative"},
		"a malformed point":         {with(pkix.Extension{Id: oidIssuingPoint, Critical: true, Value: []byte{1}}), "malformed"},
		"a critical extension":      {with(extension([]int{1, 2, 3}, 1)), "critical extension 1.2.3"},
		"a critical entry":          {entry(extension([]int{1, 2, 3}, 1)), "critical extension 1.2.3"},
		"bytes behind it":           {append(bytes.Clone(plain), 0), "follows"},
		"cut off":                   {plain[:len(plain)-1], "no revocation list"},
		"two PEM blocks":            {append(bytes.Clone(armoured), armoured...), "one PEM block"},
		"another PEM block":         {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: plain}), "one PEM block"},
		"a certificate":             {root.cert.Raw, "no revocation list"},
		"too large":                 {make([]byte, maxList+1), "larger than"},
	} {
		l, err := parseList(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	for name, data := range map[string][]byte{
		"plain": plain, "with a reason": root.list(t, 1, noon, time.Hour, func(l *x509.RevocationList) { l.RevokedCertificateEntries[0].ReasonCode = 6 }, 5),
		"an extension that is not critical": with(pkix.Extension{Id: []int{1, 2, 3}, Value: []byte{5, 0}}),
	} {
		if l, err := parseList(data); err != nil || len(l.serials) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A list may be one of several of its authority. It says nothing about
// certificates that belong to another one.
func TestPartialListsCoverTheirPart(t *testing.T) {
	root := newCA(t, "Device CA")
	const first, second = "http://pki.example/1.crl", "http://pki.example/2.crl"
	at := func(serial int64, address string) *x509.Certificate {
		template := leafOf("laptop-1", serial)
		if address != "" {
			template.CRLDistributionPoints = []string{address}
		}
		return root.issue(t, template)
	}
	dir := t.TempDir()
	put(t, dir+"/1.crl", root.list(t, 1, noon, time.Hour, func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{point(uriPoint(first), onlyFlag(1))}
	}, 6))
	i, _ := revoking(t, root, Revocation{CRLs: []string{dir + "/1.crl"}}, nil)
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want access.Reason
	}{
		"in the list":          {at(6, first), access.DeviceCertRevoked},
		"covered":              {at(5, first), ""},
		"of the other list":    {at(5, second), access.DeviceCertStatusUnknown},
		"revoked in the other": {at(6, second), access.DeviceCertStatusUnknown},
		"of no list":           {at(5, ""), access.DeviceCertStatusUnknown},
	} {
		if got := problemAt(t, i, noon, c.cert); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// An authority in between can be revoked too, by the one above it.
func TestRevokedAuthority(t *testing.T) {
	root := newCA(t, "Root CA")
	template := caOf("Issuing CA")
	template.SerialNumber = big.NewInt(77)
	issuing := root.below(t, template)
	leaf := issuing.issue(t, leafOf("laptop-1", 5))
	dir := t.TempDir()
	put(t, dir+"/issuing.crl", issuing.list(t, 1, noon, 2*time.Hour, nil))
	put(t, dir+"/root.crl", root.list(t, 1, noon, time.Hour, nil))
	cfg := Revocation{CRLs: []string{dir + "/issuing.crl", dir + "/root.crl"}}
	i, _ := revoking(t, root, cfg, nil)
	// The signature of the issuing authority is verified with its first device.
	if got := problemAt(t, i, noon, leaf, issuing.cert); got != "" {
		t.Errorf("good: %q", got)
	}
	if got := problemAt(t, i, noon.Add(time.Hour+1), leaf, issuing.cert); got != access.DeviceCertExpired {
		t.Errorf("expired: %q", got)
	}
	put(t, dir+"/root.crl", root.list(t, 2, noon, time.Hour, nil, 77))
	i.revocation.read(t.Context(), i.revocation.lists[1])
	if got := problemAt(t, i, noon, leaf, issuing.cert); got != access.DeviceCertRevoked {
		t.Errorf("below a revoked authority: %q", got)
	}
	// A list that was asked for and never read may hold the authority in between.
	os.Remove(dir + "/root.crl")
	i, _ = revoking(t, root, cfg, nil)
	if got := problemAt(t, i, noon, leaf, issuing.cert); got != access.DeviceCertStatusUnknown {
		t.Errorf("without the root's list: %q", got)
	}
	// Whoever lists only its own certificates says so, and it is enough.
	i, _ = revoking(t, root, Revocation{CRLs: cfg.CRLs[:1]}, nil)
	if got := problemAt(t, i, noon, leaf, issuing.cert); got != "" {
		t.Errorf("the issuing authority's list alone: %q", got)
	}
}

// webServer answers requests in a test, by address, and counts them.
type webServer struct {
	mu      sync.Mutex
	answers map[string]func(*http.Request) (int, []byte)
	asked   map[string]int
}

func (s *webServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	address := r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[address]++
	answer := s.answers[address]
	if answer == nil {
		answer = s.answers[r.URL.Host]
	}
	s.mu.Unlock()
	if answer == nil {
		return nil, errors.New("connection refused")
	}
	status, body := answer(r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}, Request: r}, nil
}

func (s *webServer) set(address string, answer func(*http.Request) (int, []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = map[string]func(*http.Request) (int, []byte){}
	}
	s.answers[address] = answer
}

func (s *webServer) count(address string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[address]
}

func fixed(body []byte) func(*http.Request) (int, []byte) {
	return func(*http.Request) (int, []byte) { return http.StatusOK, body }
}

// A certificate names where its list is. That is followed to listed hosts only,
// by the first request, which waits for it.
func TestListsThatCertificatesName(t *testing.T) {
	root := newCA(t, "Device CA")
	naming := func(serial int64, addresses ...string) *x509.Certificate {
		template := leafOf("laptop-1", serial)
		template.CRLDistributionPoints = addresses
		return root.issue(t, template)
	}
	const address = "http://pki.example/devices.crl"
	list := root.list(t, 1, noon, time.Hour, nil, 6)
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want access.Reason
	}{
		"good":                       {naming(5, address), ""},
		"revoked":                    {naming(6, address), access.DeviceCertRevoked},
		"a second address":           {naming(5, "ldap://pki.example/x", "http://elsewhere.example/", address), ""},
		"on no listed host":          {naming(5, "http://169.254.169.254/latest"), access.DeviceCertStatusUnknown},
		"another port":               {naming(5, "http://pki.example:8080/devices.crl"), access.DeviceCertStatusUnknown},
		"a host that looks like one": {naming(5, "http://pki.example.evil/devices.crl", "http://pki.example@evil/", "http://evil/#pki.example"), access.DeviceCertStatusUnknown},
		"none":                       {naming(5), access.DeviceCertStatusUnknown},
		"a list that is not there":   {naming(5, "http://pki.example/gone.crl"), access.DeviceCertStatusUnknown},
	} {
		s := &webServer{}
		s.set(address, fixed(list))
		i, _ := revoking(t, root, Revocation{CRLHosts: []string{"pki.example"}}, s)
		for range 3 {
			if got := problemAt(t, i, noon, c.cert); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		for asked, n := range s.asked {
			if asked != address && asked != "http://pki.example/gone.crl" || n != 1 {
				t.Errorf("%s: %s was asked %d times", name, asked, n)
			}
		}
	}
}

// A list on a server is read every refresh, and what it revokes is refused from
// then on. While the server is dead, the last list counts until its end.
func TestListsAreReadEveryRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		root := newCAAt(t, "Device CA", start)
		leaf := root.issue(t, leafAt("laptop-1", 5, start))
		const address = "https://pki.example/devices.crl"
		s := &webServer{}
		s.set(address, fixed(root.list(t, 1, start, 4*time.Hour, nil)))
		signals := make(chan access.Signal, 10)
		i, _ := running(t, Options{ClientCAs: root.pool(), Authorities: one(root.cert), Transport: s, Signal: func(s access.Signal) { signals <- s },
			Config: Config{Match: []string{"certificate.serial"}, Certificates: Certificates{Revocation: Revocation{
				CRLs: []string{address}, Refresh: access.Duration(10 * time.Minute),
			}}}})
		now := func() access.Reason { synctest.Wait(); return problemAt(t, i, time.Now(), leaf) }
		if got := now(); got != "" {
			t.Fatal(got)
		}
		before := s.count(address)
		time.Sleep(time.Hour)
		if n := s.count(address) - before; n < 6 || n > 7 {
			t.Errorf("read %d times in an hour", n)
		}
		s.set(address, fixed(root.list(t, 2, time.Now(), 4*time.Hour, nil, 5)))
		time.Sleep(10 * time.Minute)
		if got := now(); got != access.DeviceCertRevoked {
			t.Errorf("one refresh after the revocation: %q", got)
		}
		if s := <-signals; s != (access.Signal{Reason: access.DeviceCertRevoked}) {
			t.Errorf("%+v", s)
		}
		lifted := time.Now()
		s.set(address, fixed(root.list(t, 3, lifted, 4*time.Hour, nil)))
		time.Sleep(10 * time.Minute)
		s.set(address, nil) // dead
		time.Sleep(time.Until(lifted.Add(4 * time.Hour)))
		if got := now(); got != "" {
			t.Errorf("at the end of the last list: %q", got)
		}
		time.Sleep(time.Second)
		if got := now(); got != access.DeviceCertStatusUnknown {
			t.Errorf("a second later: %q", got)
		}
		s.set(address, fixed(root.list(t, 4, time.Now(), 4*time.Hour, nil)))
		time.Sleep(retryList)
		if got := now(); got != "" {
			t.Errorf("with a new list: %q", got)
		}
	})
}

// newCAAt and leafAt make certificates that are valid around a time.
func newCAAt(t testing.TB, name string, at time.Time) *ca {
	key, template := newKey(t), caOf(name)
	template.NotBefore, template.NotAfter = at.AddDate(-1, 0, 0), at.AddDate(1, 0, 0)
	return &ca{sign(t, template, template, key, key), key}
}

func leafAt(name string, serial int64, at time.Time) *x509.Certificate {
	template := leafOf(name, serial)
	template.NotBefore, template.NotAfter = at.Add(-time.Hour), at.AddDate(0, 6, 0)
	return template
}

// At a reload, what is known about revocation is kept, unless something else is
// asked for.
func TestReloadKeepsRevocations(t *testing.T) {
	root := newCA(t, "Device CA")
	leaf := root.issue(t, leafOf("laptop-1", 5))
	path := filepath.Join(t.TempDir(), "devices.crl")
	put(t, path, root.list(t, 1, noon, time.Hour, nil))
	cfg := Revocation{CRLs: []string{path}}
	before, _ := revoking(t, root, cfg, nil)
	os.Remove(path)
	again := func(cfg Revocation) *Inspector {
		return newInspector(t, Options{ClientCAs: root.pool(), Previous: before, Config: Config{Match: []string{"certificate.serial"}, Certificates: Certificates{Revocation: cfg}}})
	}
	if got := problemAt(t, again(cfg), noon, leaf); got != "" {
		t.Errorf("the same: %q", got)
	}
	cfg.Refresh = access.Duration(time.Hour)
	if got := problemAt(t, again(cfg), noon, leaf); got != access.DeviceCertStatusUnknown {
		t.Errorf("something else: %q", got)
	}
	if got := problemAt(t, again(Revocation{}), noon, leaf); got != "" {
		t.Errorf("nothing: %q", got)
	}
}

func TestRevocationFaults(t *testing.T) {
	for want, c := range map[string]Revocation{
		"crls[0]": {CRLs: []string{""}}, "crls[1]": {CRLs: []string{"a.crl", "a.crl"}}, "crls[2]": {CRLs: []string{"a", "b", "ftp://x/y"}},
		"crls":         {CRLs: strings.Split("x"+strings.Repeat(",x", maxLists), ",")},
		"crl_hosts[0]": {CRLHosts: []string{"http://pki.example"}}, "crl_hosts[1]": {CRLHosts: []string{"pki.example", "PKI.example"}}, "crl_hosts[2]": {CRLHosts: []string{"a", "b:8080", "c:80"}},
		"ocsp.hosts[0]": {OCSP: OCSP{Hosts: []string{""}}}, "ocsp.url": {OCSP: OCSP{URL: "ocsp.example"}}, "ocsp.hosts": {OCSP: OCSP{URL: "http://a", Hosts: []string{"a"}}},
		"ocsp.get": {OCSP: OCSP{Get: true}}, "refresh": {CRLs: []string{"a"}, Refresh: access.Duration(time.Second)},
		"on_unavailable.use_last_known": {CRLs: []string{"a"}, OnUnavailable: access.OnUnavailable{UseLastKnown: -1}},
		"":                              {Refresh: access.Duration(time.Hour)},
	} {
		f := access.NewFaults("r")
		c.validate(f)
		found := false
		for _, fault := range f.List() {
			found = found || strings.TrimPrefix(strings.TrimPrefix(fault.Path, "r"), ".") == want && fault.Cure != ""
		}
		if !found {
			t.Errorf("%s: %+v", want, f.List())
		}
	}
	f := access.NewFaults("r")
	(&Revocation{CRLs: []string{"a.crl", "http://pki.example/a.crl"}, CRLHosts: []string{"pki.example", "[::1]:8080"},
		OCSP: OCSP{URL: "https://ocsp.example/x", Get: true}, Refresh: access.Duration(10 * time.Second)}).validate(f)
	if len(f.List()) > 0 {
		t.Error(f.List())
	}
}
