package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// sign issues a certificate as the template says, for a server.
func (ca *authority) sign(t *testing.T, template x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca.serial++
	template.SerialNumber = big.NewInt(100 + ca.serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// An upstream that is not the one the route names gets nothing: not one byte of
// the request, and the visitor and the audit log learn why.
func TestUpstreamIdentity(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	at := net.IPv4(127, 0, 0, 1)
	named := x509.Certificate{DNSNames: []string{"Billing.internal", "*.apps.internal"}, IPAddresses: []net.IP{at}}
	workload := func(ids ...string) x509.Certificate {
		var template x509.Certificate
		for _, id := range ids {
			u, err := url.Parse(id)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, u)
		}
		return template
	}
	const id = "spiffe://prod.example/billing"
	authorityOf := workload(id)
	authorityOf.IsCA, authorityOf.BasicConstraintsValid = true, true
	client := workload(id)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}

	for name, c := range map[string]struct {
		by       *authority
		template x509.Certificate
		want     access.UpstreamTLS
		reason   access.Reason // empty: it is the one that was meant
	}{
		"a name of it":              {ca, named, access.UpstreamTLS{SAN: []string{"other.internal", "billing.internal"}}, ""},
		"its address":               {ca, named, access.UpstreamTLS{SAN: []string{"127.0.0.1"}}, ""},
		"its address, otherwise":    {ca, named, access.UpstreamTLS{SAN: []string{"::ffff:127.0.0.1"}}, ""},
		"its wildcard":              {ca, named, access.UpstreamTLS{SAN: []string{"*.apps.internal"}}, ""},
		"a name within a wildcard":  {ca, named, access.UpstreamTLS{SAN: []string{"wiki.apps.internal"}}, access.UpstreamIdentityWrong},
		"another name":              {ca, named, access.UpstreamTLS{SAN: []string{"other.internal"}}, access.UpstreamIdentityWrong},
		"another address":           {ca, named, access.UpstreamTLS{SAN: []string{"127.0.0.2"}}, access.UpstreamIdentityWrong},
		"the name, of a stranger":   {stranger, named, access.UpstreamTLS{SAN: []string{"billing.internal"}}, access.UpstreamTLSFailed},
		"the name, of another host": {ca, named, access.UpstreamTLS{SAN: []string{"billing.internal"}, ServerName: "else.internal"}, access.UpstreamTLSFailed},

		"the workload":                {ca, workload(id), access.UpstreamTLS{SPIFFE: id}, ""},
		"the workload, asked by name": {ca, workload(id), access.UpstreamTLS{SPIFFE: id, ServerName: "billing.internal"}, ""},
		"another workload":            {ca, workload(id + "/x"), access.UpstreamTLS{SPIFFE: id}, access.UpstreamIdentityWrong},
		"of another domain":           {ca, workload("spiffe://test.example/billing"), access.UpstreamTLS{SPIFFE: id}, access.UpstreamIdentityWrong},
		"two workloads at once":       {ca, workload(id, id+"/x"), access.UpstreamTLS{SPIFFE: id}, access.UpstreamIdentityWrong},
		"no workload":                 {ca, named, access.UpstreamTLS{SPIFFE: id}, access.UpstreamIdentityWrong},
		"an authority":                {ca, authorityOf, access.UpstreamTLS{SPIFFE: id}, access.UpstreamIdentityWrong},
		"the id, of a stranger":       {stranger, workload(id), access.UpstreamTLS{SPIFFE: id}, access.UpstreamTLSFailed},
		"the id, for clients only":    {ca, client, access.UpstreamTLS{SPIFFE: id}, access.UpstreamTLSFailed},
	} {
		t.Run(name, func(t *testing.T) {
			up := newCountingUpstream(t, c.by.sign(t, c.template))
			route := access.Route{ID: "app", From: "http://app.example", To: []string{"https://" + up.listener.Addr().String()}, UpstreamTLS: c.want}
			route.UpstreamTLS.CA = ca.file
			w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
			req, err := http.NewRequest("POST", "http://app.example/transfer", strings.NewReader(strings.Repeat("secret ", 10_000)))
			if err != nil {
				t.Fatal(err)
			}
			res, body := w.do(req)
			got := <-up.got
			event := w.rec.event(t)
			if c.reason == "" {
				if res.StatusCode != http.StatusTeapot || got.bytes == 0 || got.err != nil {
					t.Errorf("%s, %+v, %+v", res.Status, got, event.Response)
				}
				return
			}
			if res.StatusCode != http.StatusBadGateway || event.Response.Reason != c.reason || !strings.Contains(body, string(c.reason)) {
				t.Errorf("%s, %s: %s", res.Status, event.Response.Reason, body)
			}
			if got.bytes != 0 || got.err == nil {
				t.Errorf("%d bytes were sent, the handshake ended with %v", got.bytes, got.err)
			}
		})
	}
}

// countingUpstream takes one connection and tells how much of a request arrived.
type countingUpstream struct {
	listener net.Listener
	got      chan received
}

type received struct {
	bytes int
	err   error // of the handshake
}

func newCountingUpstream(t *testing.T, cert tls.Certificate) *countingUpstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	up := &countingUpstream{listener, make(chan received, 1)}
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		var got received
		if got.err = conn.Handshake(); got.err == nil {
			buf := make([]byte, 1<<20)
			got.bytes, _ = conn.Read(buf)
			fmt.Fprint(conn, "HTTP/1.1 418 I am a teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		} else {
			rest, _ := io.ReadAll(raw)
			got.bytes = len(rest)
		}
		up.got <- got
		io.Copy(io.Discard, conn)
	}()
	return up
}

func TestUpstreamIdentityFaults(t *testing.T) {
	for want, c := range map[string]access.UpstreamTLS{
		"":                        {CA: "ca.pem", SAN: []string{"a.internal", "*.b", "10.0.0.1", "::1"}, ServerName: "x"},
		"belong together":         {ClientKey: "x"},
		"is neither":              {SAN: []string{"https://a"}},
		"is no SPIFFE ID":         {SPIFFE: "prod.example", CA: "ca.pem"},
		"any public authority":    {SPIFFE: "spiffe://prod.example/a"},
		"so san never matches":    {SPIFFE: "spiffe://prod.example/a", CA: "ca.pem", SAN: []string{"a"}},
		"is reached without TLS!": {SAN: []string{"a"}},
	} {
		f := access.NewFaults("")
		text, plain := strings.CutSuffix(want, "!")
		validateUpstreamTLS(&c, !plain, f)
		if list := f.List(); want == "" && len(list) > 0 || want != "" && !slices.ContainsFunc(list, func(f access.Fault) bool { return strings.Contains(f.Text, text) }) {
			t.Errorf("want %q: %+v", want, list)
		}
	}
}

// One of two addresses belongs to somebody else: it gets nothing, and the other one
// everything, since nothing was sent before.
func TestAnImpostorAmongTheAddresses(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	template := x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	serve := func(by *authority) string {
		up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if by == stranger {
				t.Errorf("the impostor got %q", body)
			}
			w.Write(body)
		}))
		up.TLS = &tls.Config{Certificates: []tls.Certificate{by.sign(t, template)}}
		up.Config.ErrorLog = log.New(io.Discard, "", 0)
		up.StartTLS()
		t.Cleanup(up.Close)
		return up.URL
	}
	route := access.Route{ID: "app", From: "http://app.example", To: []string{serve(stranger), serve(ca)}, UpstreamTLS: access.UpstreamTLS{CA: ca.file}}
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	for range 6 {
		if res, body := w.withBody("POST", "http://app.example/"); res.StatusCode != 200 || body != "body" {
			t.Errorf("%s %s", res.Status, body)
		}
	}
	if at := w.door.Upstreams()[0].Targets; !strings.Contains(at[0].LastError, "certificate") || at[1].LastError != "" {
		t.Errorf("%+v", at)
	}
}
