package serve

import (
	"context"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
)

// loadTLS reads the certificate files, and says which hosts need a certificate
// that is in none. Whether to speak TLS at all is settled at the start.
func (l *live) loadTLS(ctx context.Context, cfg *config.Config) (err error) {
	conf := cfg.Server.TLS
	switch {
	case l.current.Load() == nil && conf.Enabled():
		l.tls, err = proxy.NewTLS(conf, l.issuer)
	case l.tls != nil && conf.Enabled():
		err = l.tls.Reload(conf)
	}
	if err != nil || l.tls == nil || !conf.Enabled() {
		return err
	}
	var hosts []string
	for _, host := range cfg.Issued() {
		if !l.tls.Covers(host) {
			hosts = append(hosts, host)
		}
	}
	return l.issuer.Configure(ctx, conf.ACME, hosts)
}

// certificates are those that the listener serves, from files and by ACME.
func (l *live) certificates() (list []telemetry.Certificate) {
	if l.tls == nil {
		return nil
	}
	for _, leaf := range l.tls.Leaves() {
		name := leaf.Subject.CommonName
		if len(leaf.DNSNames) > 0 {
			name = leaf.DNSNames[0]
		}
		list = append(list, telemetry.Certificate{Name: name, NotAfter: leaf.NotAfter})
	}
	if !l.current.Load().cfg.Server.TLS.ACME.Enabled() {
		return list
	}
	for _, s := range l.issuer.Status() {
		list = append(list, telemetry.Certificate{Name: s.Host, NotAfter: s.NotAfter, Failing: s.Error != ""})
	}
	return list
}
