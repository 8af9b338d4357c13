package serve

import (
	"errors"
	"net"
	"net/http"

	"github.com/doorward/doorward/internal/lane"
	"github.com/doorward/doorward/proxy"
)

// withLane returns how a server is served and ended: with a fast lane for plain
// requests, where it speaks plaintext and the configuration says nothing else.
func withLane(server *http.Server, c *proxy.Config) (side, func(net.Listener) error) {
	if server.TLSConfig != nil || !c.Lane() {
		return server, serveHTTP(server)
	}
	fast := lane.New(server)
	return fast, func(l net.Listener) error {
		if err := fast.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
