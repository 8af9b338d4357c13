package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
)

// prepareTLS reads every file that the listeners need for TLS. Nothing changes
// before take is called, which cannot fail. Whether to speak TLS at all is
// settled at the start.
func (l *live) prepareTLS(cfg *config.Config) (take func(context.Context), err error) {
	visitors, err := l.prepareCertificates(cfg)
	if err != nil {
		return nil, fmt.Errorf("server.tls: %w", err)
	}
	sides, err := l.prepareSides(cfg)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { visitors(ctx); sides() }, nil
}

// prepareCertificates is for the main listener. Hosts whose certificate is in no
// file are the issuer's.
func (l *live) prepareCertificates(cfg *config.Config) (take func(context.Context), err error) {
	conf := cfg.Server.TLS
	if !conf.Enabled() || l.current.Load() != nil && l.tls == nil {
		return func(context.Context) {}, nil
	}
	if l.tls == nil {
		if l.tls, err = proxy.NewTLS(conf, l.issuer); err != nil {
			return nil, err
		}
	}
	files, err := l.tls.Prepare(conf)
	if err != nil {
		return nil, err
	}
	issue, err := l.issuer.Prepare(conf.ACME)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, host := range cfg.Issued() {
		if !files.Covers(host) {
			hosts = append(hosts, host)
		}
	}
	return func(ctx context.Context) {
		l.tls.Use(files)
		issue(ctx, hosts)
	}, nil
}

// issuing returns what begins to obtain certificates that are in no file, and what
// ends it and waits for the end.
func (l *live) issuing() (start func(context.Context), stop func()) {
	stop = func() {}
	start = func(ctx context.Context) {
		running, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); l.issuer.Run(running) }()
		stop = func() { cancel(); <-ended }
	}
	return start, func() { stop() }
}

// prepareSides is for the listeners of front ends. One that speaks TLS, or does
// not, goes on doing so.
func (l *live) prepareSides(cfg *config.Config) (take func(), err error) {
	confs := map[*proxy.SideTLS]*tls.Config{}
	for _, door := range l.sideDoors(cfg) {
		if !door.conf.Enabled() || door.conf.Cert == "" {
			continue
		}
		conf, err := door.conf.TLS()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", door.key, err)
		}
		confs[door.tls] = conf
	}
	return func() {
		for holder, conf := range confs {
			holder.Use(conf)
		}
	}, nil
}

// certificates are those that are served: from files and by ACME, to visitors and to
// front ends.
func (l *live) certificates() (list []telemetry.Certificate) {
	files := func(listener string, leaves []*x509.Certificate) {
		for _, leaf := range leaves {
			name := leaf.Subject.CommonName
			if len(leaf.DNSNames) > 0 {
				name = leaf.DNSNames[0]
			}
			list = append(list, telemetry.Certificate{Listener: listener, Name: name, NotAfter: leaf.NotAfter})
		}
	}
	for i := range l.sideTLS {
		files(sideKeys[i], l.sideTLS[i].Leaves())
	}
	if l.tls == nil {
		return list
	}
	files("server", l.tls.Leaves())
	if l.current.Load().cfg.Server.TLS.ACME.Enabled() {
		for _, s := range l.issuer.Status() {
			list = append(list, telemetry.Certificate{Listener: "server", Name: s.Host, NotAfter: s.NotAfter, Failing: s.Error != ""})
		}
	}
	return list
}
