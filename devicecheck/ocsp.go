package devicecheck

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	maxAnswer  = 64 << 10
	maxAnswers = 64 << 10 // certificates
	// inUse is how long after its last request a certificate counts as in use,
	// so that the answer about it is renewed ahead of need.
	inUse = time.Hour
	// soonest is how soon a responder is asked again about one certificate.
	soonest = 10 * time.Second
)

// answers are what responders said about single certificates.
type answers struct {
	byCertificate map[answerKey]*answer
	responders    map[string]*health // by host
	room          chan struct{}      // one place for each question under way
}

type answerKey struct {
	by     authorityID
	serial string
}

// answer is the place of the answer about one certificate.
type answer struct {
	key       answerKey
	serial    *big.Int
	authority *x509.Certificate
	question  []byte // in DER
	responder string // the address

	last atomic.Pointer[verdictOf]
	// asked is when the responder was last asked, due when it will be again, and
	// used when a request came with the certificate, kept by the minute; all in
	// Unix seconds.
	asked, due, used atomic.Int64

	mu    sync.Mutex
	under chan struct{} // closed when the question under way is answered; nil: none
}

// verdictOf is what a responder said. If neither, it does not know.
type verdictOf struct {
	good, revoked bool
	// made is when the responder made the answer, until how long it counts.
	made, until time.Time
}

// answerAbout returns the place of the answer about a certificate, nil if no
// responder may be asked.
func (r *revocation) answerAbout(c, authority *x509.Certificate) *answer {
	address := r.OCSP.URL
	if address == "" {
		address = permitted(c.OCSPServer, r.OCSP.Hosts)
	}
	if address == "" {
		return nil
	}
	key := answerKey{idOf(authority), string(c.SerialNumber.Bytes())}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.answers.byCertificate[key]; a != nil {
		return a
	}
	// SHA-1 names the certificate here and protects nothing; it is what every
	// responder understands (RFC 5019 §2.1.1).
	question, err := ocsp.CreateRequest(c, authority, nil)
	if err != nil || len(r.answers.byCertificate) == maxAnswers {
		r.log.Warn("no responder is asked about a certificate", "serial", serialText(c), "err", err, "certificates", len(r.answers.byCertificate))
		return nil
	}
	a := &answer{key: key, serial: c.SerialNumber, authority: authority, question: question, responder: address}
	r.answers.byCertificate[key] = a
	return a
}

// keep sees to it that an answer is renewed, though it was not in use.
func (r *revocation) keep(a *answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers.byCertificate[a.key] == nil && len(r.answers.byCertificate) < maxAnswers {
		r.answers.byCertificate[a.key] = a
	}
}

// cold notes that the certificate is in use, and tells whether nobody has asked
// about it for as long as idle.
func (a *answer) cold(at time.Time, idle time.Duration) bool {
	now := at.Unix()
	if minute := now - now%60; a.used.Load() < minute {
		a.used.Store(minute)
	}
	return now-a.asked.Load() > int64(idle/time.Second)
}

// askSoon asks in the background, once however many wait for it, and returns
// what is closed afterwards.
func (r *revocation) askSoon(a *answer) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under != nil {
		return a.under
	}
	done := make(chan struct{})
	select {
	case r.answers.room <- struct{}{}:
	default: // too many at once: what is not known refuses
		close(done)
		return done
	}
	a.under = done
	go func() { // it ends by itself, and requests wait for no longer
		ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
		defer cancel()
		r.askNow(ctx, a)
		<-r.answers.room
		a.mu.Lock()
		defer a.mu.Unlock()
		close(done)
		a.under = nil
	}()
	return done
}

// renew asks again about certificates in use, ahead of need, until ctx ends.
func (r *revocation) renew(ctx context.Context, changed func()) {
	for {
		timer := time.NewTimer(min(soonest, r.refresh()/10))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		var all sync.WaitGroup
		var news atomic.Bool
		for _, a := range r.dueAnswers() {
			select {
			case r.answers.room <- struct{}{}:
			case <-ctx.Done():
				all.Wait()
				return
			}
			all.Go(func() {
				defer func() { <-r.answers.room }()
				if r.askNow(ctx, a) {
					news.Store(true)
				}
			})
		}
		all.Wait()
		if news.Load() {
			changed()
		}
	}
}

// dueAnswers returns the answers to renew now, and forgets those about
// certificates that nobody uses any more.
func (r *revocation) dueAnswers() (list []*answer) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, a := range r.answers.byCertificate {
		if now.Unix()-a.used.Load() <= int64(inUse/time.Second) {
			if now.Unix() >= a.due.Load() {
				list = append(list, a)
			}
			continue
		}
		if last := a.last.Load(); last == nil || now.After(last.until) {
			// A verdict on the certificate may still hold this place; it asks
			// by itself before it counts again.
			delete(r.answers.byCertificate, key)
		}
	}
	return list
}

// askNow asks the responder and reports whether a certificate stopped or began
// to be good.
func (r *revocation) askNow(ctx context.Context, a *answer) (changed bool) {
	req, err := a.request(r.OCSP.Get)
	if err != nil {
		return false
	}
	next, err := r.answerTo(ctx, a, req)
	now := r.now()
	a.asked.Store(now.Unix())
	a.due.Store(now.Add(r.untilDue(next, now)).Unix())
	before := a.last.Load()
	if err == nil {
		changed = before != nil && before.good != next.good
		a.last.Store(next)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return changed // we are stopping, which is no failure of the responder
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers.responders == nil {
		r.answers.responders = map[string]*health{}
	}
	h := r.answers.responders[req.URL.Host]
	if h == nil {
		h = &health{}
		r.answers.responders[req.URL.Host] = h
	}
	r.report(h, "OCSP responder", req.URL.Host, h.heard(err, now), "serial", a.serial.Text(16))
	return changed
}

// untilDue is the time until an answer is renewed: at the refresh, or half way to
// its end. Without an answer it is soon.
func (r *revocation) untilDue(v *verdictOf, now time.Time) time.Duration {
	if v == nil {
		return soonest
	}
	return min(r.shortened(r.refresh())-soonest/2, max(v.until.Sub(now)/2, soonest))
}

func (r *revocation) answerTo(ctx context.Context, a *answer, req *http.Request) (*verdictOf, error) {
	body, err := r.fetch(ctx, req, maxAnswer)
	if err != nil {
		return nil, err
	}
	return r.judge(a, body)
}

// request puts the question to the responder (RFC 6960 Appendix A).
func (a *answer) request(get bool) (*http.Request, error) {
	if get {
		text := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(a.question))
		return http.NewRequest(http.MethodGet, strings.TrimSuffix(a.responder, "/")+"/"+text, nil)
	}
	req, err := http.NewRequest(http.MethodPost, a.responder, bytes.NewReader(a.question))
	if err == nil {
		req.Header.Set("Content-Type", "application/ocsp-request")
		req.Header.Set("Accept", "application/ocsp-response")
	}
	return req, err
}

// judge reads an answer. It believes one that is about this very certificate,
// is current, is not older than the one before, and is signed by the authority
// or by somebody whom the authority has appointed for it (RFC 6960 §3.2,
// §4.2.2.2). An answer that names no end counts for two refreshes.
func (r *revocation) judge(a *answer, der []byte) (*verdictOf, error) {
	now := r.now()
	if err := a.isAbout(der); err != nil {
		return nil, err
	}
	resp, err := ocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: a.serial}, nil)
	if err != nil {
		return nil, fmt.Errorf("this is no OCSP answer: %w", err)
	}
	if err := r.mayAnswer(a, resp, now); err != nil {
		return nil, err
	}
	v := &verdictOf{good: resp.Status == ocsp.Good, revoked: resp.Status == ocsp.Revoked, made: resp.ThisUpdate, until: resp.NextUpdate}
	if v.until.IsZero() {
		v.until = now.Add(2 * r.refresh())
	}
	before := a.last.Load()
	switch {
	case v.made.After(now.Add(ahead)):
		return nil, errors.New("the OCSP answer is from the future")
	case !now.Before(v.until):
		return nil, fmt.Errorf("the OCSP answer ended %s", v.until.Format(time.RFC3339))
	case before != nil && v.made.Before(before.made):
		return nil, errors.New("the OCSP answer is older than the one before")
	}
	return v, nil
}

// mayAnswer checks the signature.
func (r *revocation) mayAnswer(a *answer, resp *ocsp.Response, now time.Time) error {
	signer := resp.Certificate // its signature was verified where it is there
	switch {
	case signer == nil:
		if err := resp.CheckSignatureFrom(a.authority); err != nil {
			return fmt.Errorf("the OCSP answer does not bear the signature of the authority: %w", err)
		}
		return nil
	case idOf(signer) == idOf(a.authority):
		return nil
	}
	// Any certificate of the authority could sign, a device's too.
	if !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || signer.IsCA {
		return errors.New("the OCSP answer is signed with a certificate that is not for OCSP")
	}
	if now.Before(signer.NotBefore) || now.After(signer.NotAfter) {
		return errors.New("the OCSP answer is signed with a certificate that is not valid now")
	}
	if err := signer.CheckSignatureFrom(a.authority); err != nil {
		return fmt.Errorf("the OCSP answer is signed by somebody whom the authority has not appointed: %w", err)
	}
	link := issuedBy(a.authority, signer)
	for _, l := range r.listed.Load().lists[link.by] {
		if l.revokes(&link) {
			return errors.New("the OCSP answer is signed with a certificate that was revoked")
		}
	}
	return nil
}

// The part of an answer that names the certificate (RFC 6960 §4.2.1).
type (
	ocspAnswer struct {
		Status   asn1.Enumerated
		Response struct {
			Type asn1.ObjectIdentifier
			Body []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	ocspBasic struct {
		Data struct {
			Version    int `asn1:"optional,default:0,explicit,tag:0"`
			Responder  asn1.RawValue
			ProducedAt time.Time `asn1:"generalized"`
			Singles    []asn1.RawValue
			Extensions asn1.RawValue `asn1:"optional,explicit,tag:1"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	ocspCertID struct {
		Algorithm struct {
			OID        asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Name, Key []byte
		Serial    *big.Int
	}
)

var oidSHA1 = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}

// isAbout demands that the answer is about one certificate, the one that was
// asked about. Package ocsp compares serial numbers only, and one responder may
// speak for several authorities.
func (a *answer) isAbout(der []byte) error {
	var outer ocspAnswer
	var inner ocspBasic
	var id ocspCertID
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return errors.New("this is no OCSP answer")
	}
	if outer.Status != 0 {
		return fmt.Errorf("the OCSP responder declines: %s", ocsp.ResponseStatus(outer.Status))
	}
	if rest, err := asn1.Unmarshal(outer.Response.Body, &inner); err != nil || len(rest) > 0 {
		return errors.New("the OCSP answer is malformed")
	}
	if len(inner.Data.Singles) != 1 {
		return fmt.Errorf("the OCSP answer is about %d certificates", len(inner.Data.Singles))
	}
	if _, err := asn1.Unmarshal(inner.Data.Singles[0].Bytes, &id); err != nil {
		return errors.New("the OCSP answer is malformed")
	}
	asked, err := ocsp.ParseRequest(a.question)
	if err != nil {
		return err
	}
	if !id.Algorithm.OID.Equal(oidSHA1) || !bytes.Equal(id.Name, asked.IssuerNameHash) || !bytes.Equal(id.Key, asked.IssuerKeyHash) ||
		id.Serial == nil || id.Serial.Cmp(a.serial) != 0 {
		return errors.New("the OCSP answer is about another certificate")
	}
	return nil
}
