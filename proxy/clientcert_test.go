package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// selfSigned makes a certificate; what it is worth is nothing the proxy judges.
func selfSigned(t testing.TB, name string) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func sequence(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

func armour(chain ...*x509.Certificate) string {
	var text strings.Builder
	for _, c := range chain {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return strings.ReplaceAll(url.QueryEscape(text.String()), "+", "%20") // as Envoy writes a blank
}

func envoy(c *x509.Certificate, more string) string {
	sum := sha256.Sum256(c.Raw)
	return "By=spiffe://mesh.example/gateway;Hash=" + hex.EncodeToString(sum[:]) + `;Cert="` +
		armour(c) + `"` + more
}

// shown notes the certificates that identify a visitor, and by which names.
type shown struct{ names []string }

func (s *shown) Identify(r *http.Request, _ *access.Request) error {
	s.names = nil
	if r.TLS != nil {
		for _, c := range r.TLS.PeerCertificates {
			s.names = append(s.names, c.Subject.CommonName)
		}
	}
	return nil
}

func (s *shown) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return s.Identify(r, req)
}

// claimed is a device that identifies itself by other means, if any.
type claimed struct{ id string }

func (c claimed) Inspect(_ *http.Request, req *access.Request) error {
	req.Device = access.Device{ID: c.id}
	if c.id != "" {
		req.Device.Known = access.Yes
	}
	return nil
}

const certHop, plainProxy, visitor = "10.0.0.7:1", "10.0.0.9:1", "192.0.2.1:1"

// arrive sends a request from a peer through the door, and returns which
// certificates it was identified by and what is wrong with its device.
func arrive(t *testing.T, form, device, peer string, own *x509.Certificate, headers http.Header) ([]string, access.Device) {
	t.Helper()
	saw := &shown{}
	w := newWorld(t, []access.Route{routeTo("https://app.example", newEcho(t))}, withPolicy(allowAll), func(w *world) {
		w.snapshot.Identify, w.snapshot.Inspect = saw, claimed{device}
		w.snapshot.Server.TrustedProxies = []string{"10.0.0.0/8"}
		if form != "" {
			w.snapshot.Server.ClientCertFrom = ClientCertFrom{Header: form, Proxies: []string{"10.0.0.7"}}
		}
	})
	r := httptest.NewRequest("GET", "/x", nil)
	r.Host, r.RemoteAddr, r.Header = "app.example", peer, headers.Clone()
	if peer != visitor {
		r.Header.Set("X-Forwarded-Proto", "https")
	}
	r.TLS = &tls.ConnectionState{}
	if own != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{own}
	}
	rr := httptest.NewRecorder()
	w.door.ServeHTTP(rr, r)
	if rr.Code == http.StatusOK {
		for name := range decode(t, rr.Body.String()).Header {
			if carriesCertificate(name) {
				t.Errorf("the application was sent %s", name)
			}
		}
	}
	return saw.names, w.rec.event(t).Request.Device
}

func TestCertificatesThatProxiesHandOn(t *testing.T) {
	laptop, between, proxy, other := selfSigned(t, "laptop"), selfSigned(t, "between"), selfSigned(t, "proxy"), selfSigned(t, "other")
	const forged, invalid = access.DeviceCertForged, access.DeviceCertInvalid
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	sum := sha256.Sum256(laptop.Raw)
	for name, c := range map[string]struct {
		form, peer string
		own        *x509.Certificate
		header     http.Header
		want       string // names, joined
		problem    access.Reason
	}{
		"client-cert":                     {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop)), "laptop", ""},
		"with its chain":                  {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop), "Client-Cert-Chain", sequence(between)+", "+sequence(other)), "laptop between other", ""},
		"with its chain in two lines":     {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop), "Client-Cert-Chain", sequence(between), "Client-Cert-Chain", sequence(other)), "laptop between other", ""},
		"instead of the proxy's own":      {"client-cert", certHop, proxy, header("Client-Cert", sequence(laptop)), "laptop", ""},
		"none, and the proxy's own":       {"client-cert", certHop, proxy, header(), "", ""},
		"twice":                           {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop), "Client-Cert", sequence(other)), "", invalid},
		"a list":                          {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop)+","+sequence(other)), "", invalid},
		"a chain alone":                   {"client-cert", certHop, nil, header("Client-Cert-Chain", sequence(laptop)), "", invalid},
		"PEM":                             {"client-cert", certHop, nil, header("Client-Cert", armour(laptop)), "", invalid},
		"base64 without colons":           {"client-cert", certHop, nil, header("Client-Cert", base64.StdEncoding.EncodeToString(laptop.Raw)), "", invalid},
		"with parameters":                 {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop)+";a=1"), "", invalid},
		"bytes behind it":                 {"client-cert", certHop, nil, header("Client-Cert", ":"+base64.StdEncoding.EncodeToString(append(laptop.Raw[:len(laptop.Raw):len(laptop.Raw)], 0))+":"), "", invalid},
		"empty":                           {"client-cert", certHop, nil, header("Client-Cert", ""), "", invalid},
		"too many":                        {"client-cert", certHop, nil, header("Client-Cert", sequence(laptop), "Client-Cert-Chain", strings.TrimSuffix(strings.Repeat(sequence(between)+",", maxForwarded), ",")), "", invalid},
		"the other form":                  {"client-cert", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, "")), "", forged},
		"from a visitor":                  {"client-cert", visitor, nil, header("Client-Cert", sequence(laptop)), "", forged},
		"from a proxy that may not":       {"client-cert", plainProxy, nil, header("Client-Cert", sequence(laptop)), "", forged},
		"where nobody may":                {"", certHop, nil, header("Client-Cert", sequence(laptop)), "", forged},
		"beside the visitor's own":        {"client-cert", visitor, laptop, header("Client-Cert", sequence(other)), "laptop", forged},
		"xfcc":                            {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, `;Subject="CN=laptop,O=\"y\"";URI=;DNS=a.example;DNS=b.example`)), "laptop", ""},
		"xfcc, an empty subject":          {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, `;Subject=""`)), "laptop", ""},
		"xfcc with a chain":               {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, `;Chain="`+armour(laptop, between)+`"`)), "laptop between", ""},
		"the last element":                {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(other, "")+","+envoy(laptop, "")), "laptop", ""},
		"the last line":                   {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(other, ""), "X-Forwarded-Client-Cert", envoy(laptop, "")), "laptop", ""},
		"another hash":                    {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", strings.Replace(envoy(laptop, ""), hex.EncodeToString(sum[:4]), "00000000", 1)), "", invalid},
		"a hash alone":                    {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", "Hash="+hex.EncodeToString(sum[:])), "", invalid},
		"a subject alone":                 {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", `Subject="CN=laptop"`), "", invalid},
		"a chain that begins differently": {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, `;Chain="`+armour(other, laptop)+`"`)), "", invalid},
		"two certificates":                {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", envoy(laptop, `;cert="`+armour(other)+`"`)), "", invalid},
		"an open quote in front":          {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", `Cert="x,`+envoy(laptop, "")), "", invalid},
		"an escape in front":              {"xfcc", certHop, nil, header("X-Forwarded-Client-Cert", `Subject="\,`+envoy(laptop, `;Subject=""`)), "", invalid},
		"xfcc from a visitor":             {"xfcc", visitor, nil, header("X-Forwarded-Client-Cert", envoy(laptop, "")), "", forged},
		"xfcc, the other form":            {"xfcc", certHop, nil, header("Client-Cert", sequence(laptop)), "", forged},
		"nothing":                         {"xfcc", certHop, nil, header(), "", ""},
	} {
		names, device := arrive(t, c.form, "", c.peer, c.own, c.header)
		if got := strings.Join(names, " "); got != c.want || device.Problem != c.problem {
			t.Errorf("%s: %q %q, want %q %q", name, got, device.Problem, c.want, c.problem)
		}
	}

	// A device that proves itself otherwise loses nothing by a header that was
	// removed, but by one that its proxy handed on and that is wrong.
	if _, d := arrive(t, "client-cert", "laptop-7", visitor, nil, header("Client-Cert", sequence(laptop))); d.Problem != "" || d.ID != "laptop-7" || d.Known != access.Yes {
		t.Errorf("%+v", d)
	}
	if _, d := arrive(t, "client-cert", "laptop-7", certHop, nil, header("Client-Cert", "rubbish")); d.Problem != invalid || d.Known != access.Unknown {
		t.Errorf("%+v", d)
	}
}

// Whatever the name is spelt like, a certificate in a header of anybody else's
// identifies nobody, is not passed on, and is told of.
func TestForgedCertificateHeadersInEverySpelling(t *testing.T) {
	laptop := selfSigned(t, "laptop")
	names := []string{
		"Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-SSL-Cert", "X-SSL-Client-Cert", "SSL-Client-Cert", "SSL-Client-Verify", "X-ARR-ClientCert",
		"X-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-SSL-Client-DN",
	}
	rapid.Check(t, func(rt *rapid.T) {
		name := []byte(rapid.SampledFrom(names).Draw(rt, "name"))
		for i := range name {
			switch how := rapid.IntRange(0, 3).Draw(rt, "how"); {
			case name[i] == '-' && how == 1:
				name[i] = '_'
			case name[i] == '-' && how == 2:
				name[i] = '.'
			case 'a' <= name[i] && name[i] <= 'z' && how == 1:
				name[i] -= 'a' - 'A'
			case 'A' <= name[i] && name[i] <= 'Z' && how == 1:
				name[i] += 'a' - 'A'
			}
		}
		h := http.Header{}
		key := string(name)
		if rapid.Bool().Draw(rt, "canonical") {
			key = http.CanonicalHeaderKey(key)
		}
		h[key] = []string{rapid.SampledFrom([]string{sequence(laptop), armour(laptop), envoy(laptop, ""), ""}).Draw(rt, "value")}
		form := rapid.SampledFrom([]string{"", "client-cert", "xfcc"}).Draw(rt, "form")
		got, d := arrive(t, form, "", visitor, nil, h)
		if len(got) > 0 || d.Problem != access.DeviceCertForged || d.Known != access.Unknown {
			rt.Fatalf("%q: %v %+v", key, got, d)
		}
	})
}

// An element that a visitor wrote may spoil the header, but never decides which
// certificate counts.
func FuzzXFCC(f *testing.F) {
	laptop := selfSigned(f, "laptop")
	last := envoy(laptop, `;Subject="CN=laptop";URI=`)
	for _, front := range []string{"", "By=a;Hash=b", `Cert="`, `Subject="\`, `Subject="\"`, `A="",B=`, ",,", `X=";Cert=";Y="`, envoy(selfSigned(f, "other"), "")} {
		f.Add(front)
	}
	f.Fuzz(func(t *testing.T, front string) {
		chain, err := readXFCC(http.Header{xfccHeader: {front + "," + last}})
		if err == nil && (len(chain) != 1 || !chain[0].Equal(laptop)) {
			t.Fatalf("%q changed the certificate to %v", front, chain)
		}
		// And by itself it is read or refused, within bounds.
		if elements, err := parseXFCC(front); err == nil && (len(elements) == 0 || len(elements) > maxElements) {
			t.Fatalf("%d elements", len(elements))
		}
	})
}

func FuzzClientCert(f *testing.F) {
	laptop := selfSigned(f, "laptop")
	f.Add(sequence(laptop), sequence(laptop))
	f.Add(sequence(laptop), sequence(laptop)+" ,\t"+sequence(laptop))
	f.Add("::", ",")
	f.Fuzz(func(t *testing.T, leaf, chain string) {
		got, err := readClientCert(http.Header{clientCertHeader: {leaf}, clientCertChainHeader: {chain}})
		if err != nil {
			return
		}
		// What was read is what was written, byte by byte.
		if len(got) > maxForwarded || sequence(got[0]) != leaf {
			t.Fatalf("%q was read as %q", leaf, sequence(got[0]))
		}
		var items []string
		for item := range strings.SplitSeq(chain, ",") {
			items = append(items, strings.Trim(item, " \t"))
		}
		for i, c := range got[1:] {
			if sequence(c) != items[i] {
				t.Fatalf("%q was read as %q", chain, sequence(c))
			}
		}
	})
}
