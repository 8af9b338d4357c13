package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// apacheServer is Apache with mod_auth_openidc, which keeps its sessions as the
// directive says, and a session that comes from a real login.
func apacheServer(kind, directive string) participant {
	return participant{"mod_auth_openidc, " + kind, func(b *bench) (*server, error) { return b.startApache(directive) }}
}

// apacheModules is where Debian keeps them.
const apacheModules = "/usr/lib/apache2/modules"

func (b *bench) startApache(directive string) (*server, error) {
	program, err := find("apache2", "apache2")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(apacheModules + "/mod_auth_openidc.so"); err != nil {
		return nil, &missing{"mod_auth_openidc", "apt-get install libapache2-mod-auth-openidc"}
	}
	dir, err := b.folder("apache")
	if err != nil {
		return nil, err
	}
	address, err := b.freeAddress()
	if err != nil {
		return nil, err
	}
	l := load{scheme: "http", address: address, host: localhost("app", address), path: smallPath, size: smallSize}
	user := ""
	if os.Getuid() == 0 {
		user = "User www-data\nGroup www-data"
	}
	config := filepath.Join(dir, "apache2.conf")
	text := fmt.Sprintf(apacheConfig, dir, address, user, directive, b.issuer, clientSecret, l.host, b.backend, b.backend)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := start(b.proxyCore, dir, nil, program, "-f", config, "-DFOREGROUND")
	if err != nil {
		return nil, err
	}
	return b.loggedIn(p, l)
}

// loggedIn waits until a program listens, logs in through it, and gives the
// load the cookies that this has left.
func (b *bench) loggedIn(p *process, l load) (*server, error) {
	s, err := b.ready(p, l)
	if err != nil {
		return nil, err
	}
	if s.load.header, err = newVisitor().logIn(b.ctx, l.scheme+"://"+l.host+l.path); err != nil {
		p.stop()
		return nil, fmt.Errorf("%w\n%s", err, p.out.String())
	}
	return s, nil
}

const apacheConfig = `ServerRoot %s
PidFile apache2.pid
Listen %s
%s
ServerName app.localhost
ErrorLog /dev/stderr
LoadModule mpm_event_module ` + apacheModules + `/mod_mpm_event.so
LoadModule authn_core_module ` + apacheModules + `/mod_authn_core.so
LoadModule authz_core_module ` + apacheModules + `/mod_authz_core.so
LoadModule authz_user_module ` + apacheModules + `/mod_authz_user.so
LoadModule proxy_module ` + apacheModules + `/mod_proxy.so
LoadModule proxy_http_module ` + apacheModules + `/mod_proxy_http.so
LoadModule auth_openidc_module ` + apacheModules + `/mod_auth_openidc.so
StartServers 2
ServerLimit 4
MinSpareThreads 1
MaxSpareThreads 256
ThreadsPerChild 64
MaxRequestWorkers 256
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
%s
OIDCProviderMetadataURL %s/.well-known/openid-configuration
OIDCClientID apache
OIDCClientSecret "%s"
OIDCScope "openid email profile"
OIDCPKCEMethod S256
OIDCRedirectURI http://%s/redirect_uri
OIDCCryptoPassphrase "only for the bench"
OIDCSessionInactivityTimeout 36000
<Location />
	AuthType openid-connect
	Require valid-user
</Location>
ProxyPass /redirect_uri !
ProxyPass / http://%s/
ProxyPassReverse / http://%s/
`
