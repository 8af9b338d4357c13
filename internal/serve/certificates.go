package serve

import (
	"context"

	"github.com/doorward/doorward/config"
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
