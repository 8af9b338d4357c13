package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
	"github.com/doorward/doorward/proxy/extauthz"
	"github.com/doorward/doorward/proxy/spoe"
)

// side is a listener for front ends that only ask.
type side interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// sides are all of them.
type sides []side

// sideDoor is what there is to know of one before it is opened.
type sideDoor struct {
	key   string
	conf  *proxy.SideDoor
	tls   *proxy.SideTLS
	serve func(*config.Config, *tls.Config) (side, func(net.Listener) error)
}

var sideKeys = [...]string{"server.forward_auth", "server.ext_authz", "server.spoe"}

func sideSections(cfg *config.Config) [len(sideKeys)]*proxy.SideDoor {
	return [...]*proxy.SideDoor{&cfg.Server.ForwardAuth, &cfg.Server.ExtAuthz, &cfg.Server.SPOE}
}

func (l *live) sideDoors(cfg *config.Config) (list []sideDoor) {
	serve := [...]func(*config.Config, *tls.Config) (side, func(net.Listener) error){l.forwardAuth, l.extAuthz, l.spoe}
	for i, conf := range sideSections(cfg) {
		list = append(list, sideDoor{sideKeys[i], conf, &l.sideTLS[i], serve[i]})
	}
	return list
}

// openSides opens those that the configuration asks for.
func (l *live) openSides(cfg *config.Config, open *listeners, failed chan<- error) (sides, error) {
	var all sides
	for _, one := range l.sideDoors(cfg) {
		if !one.conf.Enabled() {
			continue
		}
		var conf *tls.Config
		if one.conf.Cert != "" {
			conf = one.tls.Config()
		}
		server, serve := one.serve(cfg, conf)
		if err := open.serve(one.key+".listen", one.conf.Listen, one.conf.Open, serve, failed); err != nil {
			return nil, err
		}
		all = append(all, server)
		l.log.Info("answering front ends", "key", one.key, "address", one.conf.Listen, "tls", conf != nil)
	}
	return all, nil
}

func (l *live) forwardAuth(cfg *config.Config, conf *tls.Config) (side, func(net.Listener) error) {
	server := proxy.NewServer(cfg.Server.Config, l.door)
	server.ConnState = l.connections.note
	server.TLSConfig = conf
	server.Protocols.SetUnencryptedHTTP2(conf == nil)
	ask := l.door.ForwardAuth()
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer l.metrics.Begin(access.ForwardAuth)()
		ask.ServeHTTP(w, r)
	})
	return withLane(server, &cfg.Server.Config)
}

func (l *live) extAuthz(_ *config.Config, conf *tls.Config) (side, func(net.Listener) error) {
	server := extauthz.New(proxy.SideOptions{Door: l.door, TLS: conf, Log: l.log, Begin: func() func() { return l.metrics.Begin(access.ExtAuthz) }})
	return server, server.Serve
}

func (l *live) spoe(_ *config.Config, conf *tls.Config) (side, func(net.Listener) error) {
	server := spoe.New(proxy.SideOptions{Door: l.door, TLS: conf, Log: l.log, Begin: func() func() { return l.metrics.Begin(access.SPOE) }})
	return server, server.Serve
}

// leave has front ends connect anew, to whoever listens there then, and tells when
// all have, or ctx has ended. What speaks HTTP does so by its answers.
func (s sides) leave(ctx context.Context) (left <-chan struct{}) {
	var leaving sync.WaitGroup
	for _, server := range s {
		if server, ok := server.(interface{ Leave(context.Context) error }); ok {
			leaving.Go(func() { server.Leave(ctx) })
		}
	}
	done := make(chan struct{})
	go func() {
		leaving.Wait()
		close(done)
	}()
	return done
}

func (s sides) shutdown(ctx context.Context) (err error) {
	for _, server := range s {
		err = errors.Join(err, server.Shutdown(ctx))
	}
	return err
}

func (s sides) close() {
	for _, server := range s {
		server.Close()
	}
}
