package serve

import (
	"context"
	"crypto/tls"
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
