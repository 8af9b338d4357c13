package issuance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/doorward/doorward/internal/store"
)

// The names under which a Keeper keeps things.
func certificateName(host string) string { return "certificate/" + host }
func challengeName(host string) string   { return "challenge/" + host }
func pauseName(host string) string       { return "pause/" + host }

const accountName = "account"

// kept returns the certificate of a host that the store has, nil if there is
// none.
func (i *Issuer) kept(ctx context.Context, host string) (*tls.Certificate, error) {
	text, err := i.opts.Keep.Get(ctx, certificateName(host))
	if err != nil || text == nil {
		return nil, err
	}
	return decode(text, host)
}

// answer returns the certificate that proves to an authority that a host is ours.
// Any replica may have ordered.
func (i *Issuer) answer(ctx context.Context, host string) (*tls.Certificate, error) {
	text, err := i.opts.Keep.Get(ctx, challengeName(host))
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, fmt.Errorf("nobody has ordered a certificate for %s", host)
	}
	return decode(text, host)
}

// account returns the key of the account, which all replicas and hosts share. It
// is made at the first use.
func (i *Issuer) account(ctx context.Context) (*ecdsa.PrivateKey, error) {
	for {
		text, err := i.opts.Keep.Get(ctx, accountName)
		if errors.Is(err, store.ErrUnavailable) {
			return nil, err
		}
		if err == nil && text != nil {
			key, err := x509.ParsePKCS8PrivateKey(text)
			if key, ok := key.(*ecdsa.PrivateKey); err == nil && ok {
				return key, nil
			}
		}
		lock := store.Item{Key: lockFolder + accountName, Value: []byte("held"), Version: store.New, Expires: i.opts.Now().Add(time.Minute)}
		version, err := i.opts.Store.Put(ctx, lock)
		if errors.Is(err, store.ErrConflict) {
			select {
			case <-time.After(elsewhere):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err == nil {
			text, err = x509.MarshalPKCS8PrivateKey(key)
		}
		if err == nil {
			err = i.opts.Keep.Put(ctx, accountName, text, time.Time{})
		}
		return key, errors.Join(err, i.opts.Store.Delete(ctx, lock.Key, version))
	}
}

// encode writes a certificate with its key as PEM.
func encode(chain [][]byte, key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, cert := range chain {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert})
	}
	return text.Bytes(), nil
}

// decode reads what encode wrote. A certificate for another host is an error.
func decode(text []byte, host string) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	return &cert, cert.Leaf.VerifyHostname(host)
}

// pause is how long a host is left alone, after an order that failed or one that
// did not. All replicas keep to it, and it survives a restart: authorities count
// failures.
type pause struct {
	Until    time.Time `json:"until"`
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// backoff is how long to wait after failures in a row. Let's Encrypt allows five
// of them per host and hour.
var backoff = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute}

const longestPause = 24 * time.Hour

// longer returns the pause after one more failure. What the authority asks for
// counts where that is longer.
func (p *pause) longer(now time.Time, err error) pause {
	wait := backoff[min(p.Failures, len(backoff)-1)]
	var refused *acme.Error
	if errors.As(err, &refused) {
		if after, limited := acme.RateLimit(refused); limited {
			wait = max(backoff[len(backoff)-1], min(after, longestPause))
		}
	}
	return pause{Until: now.Add(wait), Failures: p.Failures + 1, Error: explain(err)}
}

func (i *Issuer) pausedUntil(ctx context.Context, host string) *pause {
	p := &pause{}
	// What cannot be read is no pause: it costs at most one attempt.
	if text, err := i.opts.Keep.Get(ctx, pauseName(host)); err == nil && text != nil && json.Unmarshal(text, p) != nil {
		*p = pause{}
	}
	return p
}

func (i *Issuer) keepPause(ctx context.Context, host string, p *pause) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit) // also after an attempt that took too long
	defer cancel()
	text, err := json.Marshal(p)
	if err == nil {
		err = i.opts.Keep.Put(ctx, pauseName(host), text, p.Until.Add(longestPause))
	}
	if err != nil {
		i.opts.Log.Warn("other replicas do not know when to order next", "host", host, "error", err)
	}
}
