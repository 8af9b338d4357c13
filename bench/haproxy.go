package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
)

// haproxyServer is HAProxy with one thread that checks nothing.
func haproxyServer(tls bool, path string, size int) participant {
	return participant{"HAProxy, no check", func(b *bench) (*server, error) {
		return b.startHAProxy(tls, "", load{path: path, size: size})
	}}
}

// haproxyVerifying is HAProxy that verifies the signature of a token in each
// request, and looks at nothing else in it.
func haproxyVerifying(algorithm string) participant {
	return haproxyWithToken("HAProxy, "+algorithm+" verified each time", algorithm,
		`http-request deny deny_status 401 unless { http_auth_bearer,jwt_verify("ALGORITHM","KEY") -m int 1 }`)
}

// haproxyAccepting is HAProxy that takes a token for what RFC 9068 §4 says it must
// be: of the algorithm, the issuer and the audience that are expected, not expired,
// and signed, looked at in this order, the dearest last.
func haproxyAccepting(algorithm string) participant {
	return haproxyWithToken("HAProxy, "+algorithm+" and claims", algorithm, `http-request set-var(txn.token) http_auth_bearer
	http-request set-var(txn.now) date()
	http-request deny deny_status 401 unless { var(txn.token),jwt_header_query('$.alg') -m str ALGORITHM }
	http-request deny deny_status 401 unless { var(txn.token),jwt_payload_query('$.iss') -m str ISSUER }
	http-request deny deny_status 401 unless { var(txn.token),jwt_payload_query('$.aud') -m str AUDIENCE }
	http-request deny deny_status 401 unless { var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now) -m int gt 0 }
	http-request deny deny_status 401 unless { var(txn.token),jwt_verify("ALGORITHM","KEY") -m int 1 }`)
}

// haproxyWithToken is HAProxy that checks the access token that each request
// carries, the same one. It keeps no results.
func haproxyWithToken(name, algorithm, checks string) participant {
	return participant{name, func(b *bench) (*server, error) {
		key, err := b.publicKey(algorithm)
		if err != nil {
			return nil, err
		}
		tokens, err := b.accessTokens(algorithm, 1)
		if err != nil {
			return nil, err
		}
		header, err := firstBearer(tokens)
		if err != nil {
			return nil, err
		}
		checks := strings.NewReplacer("ALGORITHM", algorithm, "KEY", key, "ISSUER", b.issuer, "AUDIENCE", audience).Replace(checks)
		return b.startHAProxy(false, checks, load{path: smallPath, size: smallSize, header: header})
	}}
}

// publicKey writes the public key of the provider's tokens to a file.
func (b *bench) publicKey(algorithm string) (path string, err error) {
	if err := b.idp.SignWith(algorithm); err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(b.idp.PublicKey())
	if err != nil {
		return "", err
	}
	path = filepath.Join(b.dir, algorithm+".pem")
	return path, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

func (b *bench) startHAProxy(tls bool, checks string, l load) (*server, error) {
	program, err := find("haproxy", "haproxy")
	if err != nil {
		return nil, err
	}
	dir, err := b.folder("haproxy")
	if err != nil {
		return nil, err
	}
	if l.address, err = b.freeAddress(); err != nil {
		return nil, err
	}
	l.scheme, l.host = "http", "app.localhost"
	bind := l.address
	if tls {
		bind += " ssl crt " + b.cert.both + " alpn h2,http/1.1"
		l.scheme = "https"
	}
	config := filepath.Join(dir, "haproxy.cfg")
	text := strings.NewReplacer("BIND", bind, "CHECKS", checks, "BACKEND", b.backend).Replace(haproxyConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := start(b.proxyCore, dir, nil, program, "-db", "-f", config)
	if err != nil {
		return nil, err
	}
	return b.ready(p, l)
}

const haproxyConfig = `global
	nbthread 1
	maxconn 9000
	tune.ssl.default-dh-param 2048
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	option http-keep-alive
	http-reuse always
frontend visitors
	bind BIND
	option forwardfor
	CHECKS
	default_backend application
backend application
	server one BACKEND
`
