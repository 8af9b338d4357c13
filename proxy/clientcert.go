package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/doorward/doorward/internal/access"
)

// ClientCertFrom says which proxies hand on the certificate that a visitor
// showed to them. It is verified here like one shown to Doorward itself; that
// the visitor has its key is the proxy's word.
type ClientCertFrom struct {
	// Header is how they do it: `client-cert` (Client-Cert and Client-Cert-Chain,
	// RFC 9440) or `xfcc` (x-forwarded-client-cert of Envoy, with the details
	// `cert: true`). The proxy has to remove what visitors send under this name;
	// with Envoy that is `SANITIZE_SET`. Required.
	Header string `yaml:"header"`
	// Proxies lists those of trusted_proxies that may. Default: all of them.
	Proxies []string `yaml:"proxies"`
}

// The forms of ClientCertFrom.
const (
	clientCertForm = "client-cert"
	xfccForm       = "xfcc"
)

// The headers of the two forms, in canonical form.
const (
	clientCertHeader      = "Client-Cert"
	clientCertChainHeader = "Client-Cert-Chain"
	xfccHeader            = "X-Forwarded-Client-Cert"
)

const (
	// maxForwarded bounds the certificates of one visitor.
	maxForwarded = 8
	// maxElements bounds the hops of one XFCC header.
	maxElements      = 32
	forwardedInCache = 4096
)

// Enabled reports whether anybody may hand on certificates.
func (c *ClientCertFrom) Enabled() bool { return c.Header != "" || len(c.Proxies) > 0 }

func (c *ClientCertFrom) validate(trusted []string, f access.Faults) {
	if !c.Enabled() {
		return
	}
	if c.Header != clientCertForm && c.Header != xfccForm {
		f.At("header").Add("write client-cert or xfcc", "%q is no way to hand on a certificate", c.Header)
	}
	if len(trusted) == 0 {
		f.Add("list the proxy in trusted_proxies", "no proxy is trusted, so none may hand on certificates")
	}
	for i, text := range c.Proxies {
		inner, err := parsePrefix(text)
		if err != nil {
			f.At("proxies[%d]", i).Add("write 10.0.0.7 or 10.1.0.0/24", "%q is no address or network", text)
			continue
		}
		within := func(text string) bool {
			outer, err := parsePrefix(text)
			return err == nil && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
		}
		if len(trusted) > 0 && !slices.ContainsFunc(trusted, within) {
			f.At("proxies[%d]", i).Add("add it to trusted_proxies", "%q is not among the trusted proxies", text)
		}
	}
}

// certHops reads the certificates that proxies hand on. Nil: none may.
type certHops struct {
	form  string
	hops  []netip.Prefix
	known *lru.Cache[[sha256.Size]byte, []*x509.Certificate]
}

func newCertHops(c ClientCertFrom, trusted []netip.Prefix) (*certHops, error) {
	if !c.Enabled() {
		return nil, nil
	}
	h := &certHops{form: c.Header, hops: trusted}
	if len(c.Proxies) > 0 {
		h.hops = nil
	}
	for _, text := range c.Proxies {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		h.hops = append(h.hops, prefix)
	}
	var err error
	h.known, err = lru.New[[sha256.Size]byte, []*x509.Certificate](forwardedInCache)
	return h, err
}

// among reports whether an address belongs to one of the proxies.
func (h *certHops) among(addr netip.Addr) bool {
	return h != nil && listed(h.hops, addr)
}

// receiveCertificate settles which certificate is the visitor's. It is the one
// that was shown to a proxy which may say so, or that of the connection, unless
// that is a proxy's own. A header that looks like a certificate identifies
// nobody where it comes from anybody else: receiveHeader removes it with all its kin,
// and inspect tells of it. known reports whether a header may tell of one, and has.
func (p *passage) receiveCertificate(peer netip.Addr, trusted bool) (known bool) {
	r, hops := p.in, p.gen.certHops
	if p.question != nil && p.question.Certificate != "" {
		r.TLS = nil
		chain, err := pemChain(p.question.Certificate)
		if err != nil {
			p.certificate = access.DeviceCertInvalid
			p.note(fmt.Errorf("the certificate that a front end tells of: %w", err))
			return true
		}
		r.TLS = &tls.ConnectionState{PeerCertificates: chain}
		return true
	}
	if !hops.among(peer) {
		if trusted && relayed(r.Header) {
			r.TLS = nil // a certificate would be the proxy's, not the visitor's
		}
		return false
	}
	r.TLS = nil
	chain, err := hops.read(r.Header)
	switch {
	case err != nil:
		p.certificate = access.DeviceCertInvalid
		p.door.log.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelWarn, "a certificate that a proxy hands on cannot be read",
			slog.String("request", p.req.ID), slog.Any("proxy", peer), slog.Any("error", err))
		return true
	case len(chain) > 0:
		r.TLS = &tls.ConnectionState{PeerCertificates: chain}
		return true
	}
	return false
}

// certificateNames begin the names of headers that hand on a certificate, as
// skeleton writes them.
var certificateNames = []string{
	"client-cert", "x-client-cert", "x-forwarded-client-cert", "x-forwarded-tls-client-cert", "x-ssl-cert", "x-ssl-client",
	"ssl-client-", "x-arr-clientcert", "x-amzn-mtls-",
}

// carriesCertificate reports whether a header, by its name in any spelling, looks
// like a certificate that is handed on.
func carriesCertificate(name string) bool {
	for _, start := range certificateNames {
		if likens(name, start) {
			return true
		}
	}
	return false
}

// read returns the chain that a proxy hands on, the visitor's certificate first,
// and nothing where the visitor showed none.
func (h *certHops) read(header http.Header) ([]*x509.Certificate, error) {
	names := []string{clientCertHeader, clientCertChainHeader}
	read := readClientCert
	if h.form == xfccForm {
		names, read = []string{xfccHeader}, readXFCC
	}
	hash, there := sha256.New(), false
	for _, name := range names {
		for _, line := range header[name] {
			there = true
			fmt.Fprintf(hash, "%s:%d:%s", name, len(line), line)
		}
	}
	if !there {
		return nil, nil
	}
	key := [sha256.Size]byte(hash.Sum(nil))
	if chain, ok := h.known.Get(key); ok {
		return chain, nil
	}
	chain, err := read(header)
	if err == nil {
		h.known.Add(key, chain)
	}
	return chain, err
}

// readClientCert reads the two headers of RFC 9440: an item and a list of byte
// sequences (RFC 8941 §3.3.5), the second without the first.
func readClientCert(header http.Header) ([]*x509.Certificate, error) {
	if len(header[clientCertHeader]) != 1 {
		return nil, fmt.Errorf("there are %d headers %s", len(header[clientCertHeader]), clientCertHeader)
	}
	leaf, err := byteSequence(header[clientCertHeader][0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", clientCertHeader, err)
	}
	chain := []*x509.Certificate{leaf}
	for _, line := range header[clientCertChainHeader] {
		for item := range strings.SplitSeq(line, ",") {
			if len(chain) == maxForwarded {
				return nil, fmt.Errorf("there are more than %d certificates", maxForwarded)
			}
			c, err := byteSequence(strings.Trim(item, " \t"))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", clientCertChainHeader, err)
			}
			chain = append(chain, c)
		}
	}
	return chain, nil
}

// byteSequence reads `:BASE64:`, the DER of a certificate.
func byteSequence(text string) (*x509.Certificate, error) {
	if len(text) < 2 || text[0] != ':' || text[len(text)-1] != ':' || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("the value is no byte sequence between colons")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text[1 : len(text)-1])
	if err != nil {
		return nil, errors.New("the value is not base64")
	}
	return parseCertificate(der)
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("the value is no certificate")
	}
	return c, nil
}

// readXFCC reads Envoy's header: one element per hop, of which the last is what
// the proxy that speaks has seen itself. The others are only read to find it.
func readXFCC(header http.Header) ([]*x509.Certificate, error) {
	elements, err := parseXFCC(strings.Join(header[xfccHeader], ","))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", xfccHeader, err)
	}
	return elements[len(elements)-1].chain()
}

// xfcc is what an element of the header says of a certificate.
type xfcc struct{ hash, cert, certChain string }

// parseXFCC takes the whole header or nothing. An earlier element may have been
// written by a visitor, whose open quote must not swallow the last one.
func parseXFCC(text string) ([]xfcc, error) {
	var elements []xfcc
	for {
		if len(elements) == maxElements {
			return nil, fmt.Errorf("there are more than %d hops", maxElements)
		}
		var e xfcc
		end, err := e.parse(strings.TrimLeft(text, " \t"))
		if err != nil {
			return nil, err
		}
		elements = append(elements, e)
		end = strings.TrimLeft(end, " \t")
		if end == "" {
			return elements, nil
		}
		if end[0] != ',' {
			return nil, errors.New("something follows a value")
		}
		text = end[1:]
	}
}

// parse reads one element, KEY=VALUE pairs with semicolons between them, and
// returns what follows it.
func (e *xfcc) parse(text string) (rest string, err error) {
	for {
		key, after, ok := strings.Cut(text, "=")
		if !ok || key == "" || strings.Trim(key, xfccKey) != "" {
			return "", errors.New("a key is missing or malformed")
		}
		value, after, err := xfccValue(after)
		if err != nil {
			return "", err
		}
		if err := e.set(key, value); err != nil {
			return "", err
		}
		if !strings.HasPrefix(after, ";") {
			return after, nil
		}
		text = after[1:]
	}
}

const xfccKey = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// xfccValue reads a value, in quotes if it holds a character that would end it,
// and returns what follows.
func xfccValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ",;")
		if end < 0 {
			end = len(text)
		}
		value = strings.TrimRight(text[:end], " \t")
		if strings.ContainsAny(value, "\"\\= \t") {
			return "", "", errors.New("a value needs quotes")
		}
		return value, text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			return b.String(), text[i+1:], nil
		case '\\':
			// Distinguished names have escapes of their own, which stay.
			if i++; i == len(text) {
				return "", "", errors.New("a quote does not end")
			}
			if text[i] != '"' && text[i] != '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote does not end")
}

// set keeps what identifies the certificate. Keys are compared without regard to
// case, so that none is there twice to one reader and once to another.
func (e *xfcc) set(key, value string) error {
	for name, to := range map[string]*string{"hash": &e.hash, "cert": &e.cert, "chain": &e.certChain} {
		switch {
		case !strings.EqualFold(key, name):
		case *to != "":
			return fmt.Errorf("%s is there twice", name)
		case value == "":
			return fmt.Errorf("%s is empty", name)
		default:
			*to = value
		}
	}
	return nil
}

// chain returns the certificates of the element.
func (e *xfcc) chain() ([]*x509.Certificate, error) {
	leaf, err := pemChain(e.cert)
	if err != nil {
		return nil, err
	}
	chain, err := pemChain(e.certChain)
	switch {
	case err != nil:
		return nil, err
	case len(leaf) > 1:
		return nil, errors.New("Cert holds several certificates")
	case len(leaf)+len(chain) == 0:
		return nil, errors.New("it holds no certificate: set_current_client_cert_details needs cert: true")
	case len(chain) == 0:
		chain = leaf
	case len(leaf) == 1 && !leaf[0].Equal(chain[0]):
		return nil, errors.New("Chain does not begin with Cert")
	}
	if e.hash != "" {
		want, err := hex.DecodeString(e.hash)
		sum := sha256.Sum256(chain[0].Raw)
		if err != nil || !bytes.Equal(want, sum[:]) {
			return nil, errors.New("Hash is not that of the certificate")
		}
	}
	return chain, nil
}

// pemChain reads certificates in PEM, percent-encoded.
func pemChain(text string) (chain []*x509.Certificate, err error) {
	if text == "" {
		return nil, nil
	}
	plain, err := url.PathUnescape(text)
	if err != nil {
		return nil, errors.New("a certificate is not percent-encoded")
	}
	for rest := []byte(plain); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("a certificate is not in PEM")
		}
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("a certificate is not in PEM")
		}
		if len(chain) == maxForwarded {
			return nil, fmt.Errorf("there are more than %d certificates", maxForwarded)
		}
		c, err := parseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}
