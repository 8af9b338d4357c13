package devicecheck

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Whatever list is accepted ends, and whatever bears the signature of the
// authority is what the authority signed.
func FuzzRevocationList(f *testing.F) {
	root := newCA(f, "Device CA")
	der := root.list(f, 7, noon, time.Hour, nil, 5, 6)
	f.Add(der)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	f.Add(root.list(f, 7, noon, time.Hour, func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, point(uriPoint("http://pki.example/1.crl"), onlyFlag(1)))
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseList(data)
		if err != nil {
			return
		}
		if !l.nextUpdate.After(l.thisUpdate) || l.onlyUsers && l.onlyAuthority {
			t.Fatalf("%+v", l)
		}
		for _, c := range []issued{{}, {serial: "\x05", isCA: true}, {serial: "\x06", points: []string{"http://pki.example/1.crl"}}} {
			l.covers(&c)
			l.revokes(&c)
		}
		if l.signed.CheckSignatureFrom(root.cert) == nil && len(l.points) == 0 {
			if _, ok := l.serials["\x05"]; !ok || len(l.serials) != 2 || !l.nextUpdate.Equal(noon.Add(time.Hour)) {
				t.Fatalf("the authority never signed %+v", l)
			}
		}
	})
}

// No answer makes a certificate good that the authority has not called good.
func FuzzOCSPAnswer(f *testing.F) {
	root := newCA(f, "Device CA")
	leaf := root.issue(f, leafOf("laptop-1", 5))
	r := newRevocation(Revocation{OCSP: OCSP{URL: responderAddress}}, Options{Now: func() time.Time { return noon }}, outside{}.orReal())
	a := r.answerAbout(leaf, root.cert)
	asked, err := ocsp.ParseRequest(a.question)
	if err != nil {
		f.Fatal(err)
	}
	from := newResponder(f, root, func() time.Time { return noon })
	from.say(5, ocsp.Revoked)
	f.Add(from.answer(asked))
	from.change = func(template *ocsp.Response) { template.SerialNumber = from.cert.SerialNumber }
	f.Add(from.answer(asked)) // good, but another one
	from.change = func(template *ocsp.Response) { template.Status = ocsp.Unknown }
	f.Add(from.answer(asked))
	from.cert, from.key = appointed(f, newCA(f, "Device CA"), nil)
	from.change = func(template *ocsp.Response) { template.Status = ocsp.Good }
	f.Add(from.answer(asked)) // good, but of somebody else
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		if v, err := r.judge(a, der); err == nil && (v.good || !v.until.After(noon)) {
			t.Fatalf("%+v of %x", v, der)
		}
	})
}
