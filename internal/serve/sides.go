package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// sides are the listeners for front ends that only ask.
type sides []*http.Server

// openSides opens those that the configuration asks for.
func (l *live) openSides(cfg *config.Config, failed chan<- error) (sides, error) {
	var open sides
	if side := &cfg.Server.ForwardAuth; side.Enabled() {
		conf, err := side.TLS()
		if err != nil {
			return nil, fmt.Errorf("server.forward_auth: %w", err)
		}
		server := proxy.NewServer(cfg.Server.Config, l.door)
		server.TLSConfig = conf
		server.Protocols.SetUnencryptedHTTP2(conf == nil)
		ask := l.door.ForwardAuth()
		server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer l.metrics.Begin(access.ForwardAuth)()
			ask.ServeHTTP(w, r)
		})
		if err := listen(server, side.Open, "server.forward_auth.listen", failed); err != nil {
			return nil, err
		}
		open = append(open, server)
		l.log.Info("answering front ends", "address", side.Listen, "tls", conf != nil)
	}
	return open, nil
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
