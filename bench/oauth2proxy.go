package main

import "os"

// oauth2ProxyServer is oauth2-proxy with a session in a cookie that comes from a
// real login. No Debian package has it, so its path comes from the environment.
func oauth2ProxyServer() participant {
	return participant{"oauth2-proxy, cookie session", func(b *bench) (*server, error) {
		program := os.Getenv("OAUTH2_PROXY")
		if program == "" {
			return nil, &missing{"oauth2-proxy", "set OAUTH2_PROXY to the path of its binary"}
		}
		address, err := b.freeAddress()
		if err != nil {
			return nil, err
		}
		l := load{scheme: "http", address: address, host: localhost("app", address), path: smallPath, size: smallSize}
		p, err := start(b.proxyCore, b.dir, nil, program,
			"--provider=oidc", "--oidc-issuer-url="+b.issuer, "--client-id=oauth2-proxy", "--client-secret="+clientSecret, "--code-challenge-method=S256",
			"--cookie-secret=0123456789abcdef0123456789abcdef", "--cookie-secure=false", "--email-domain=*", "--skip-provider-button",
			"--redirect-url=http://"+l.host+"/oauth2/callback", "--http-address="+address, "--upstream=http://"+b.backend+"/",
			"--request-logging=false", "--auth-logging=false", "--standard-logging=false")
		if err != nil {
			return nil, err
		}
		return b.loggedIn(p, l)
	}}
}
