package h1

import (
	"context"
	"net"
	"net/url"
	"time"
)

// pool is the idle connections to one address, the one used last at the end. Its
// fields are protected by the client's lock.
type pool struct {
	client  *Client
	address string
	idle    []*conn
	sweeper *time.Timer // nil: none is idle
}

// pool returns the pool of the host of a URL.
func (c *Client) pool(u *url.URL) *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[u.Host]
	if p == nil {
		port := u.Port()
		if port == "" {
			port = "80"
		}
		p = &pool{client: c, address: net.JoinHostPort(u.Hostname(), port)}
		c.pools[u.Host] = p
	}
	return p
}

// connect returns an idle connection that the upstream has not closed, or else,
// or if it has to be a new one, dials.
func (c *Client) connect(ctx context.Context, p *pool, fresh bool) (*conn, error) {
	for !fresh {
		cn := p.take()
		if cn == nil {
			break
		}
		if cn.usable() {
			return cn, nil
		}
		cn.nc.Close()
	}
	nc, err := c.Dial(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	return newConn(nc, p), nil
}

// take removes the connection that was used last, and returns nil if there is
// none.
func (p *pool) take() *conn {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	p.client.keepNone = false
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	cn := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return cn
}

// put keeps an idle connection. It reports false if there are enough.
func (p *pool) put(cn *conn) bool {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keepNone || len(p.idle) >= c.IdlePerHost {
		return false
	}
	cn.since = time.Now()
	p.idle = append(p.idle, cn)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(c.IdleTimeout, p.sweep)
	}
	return true
}

// sweep closes the connections that have been idle for too long.
func (p *pool) sweep() {
	c := p.client
	c.mu.Lock()
	now, n := time.Now(), 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= c.IdleTimeout {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	kept := copy(p.idle, p.idle[n:])
	clear(p.idle[kept:])
	p.idle = p.idle[:kept]
	switch {
	case p.sweeper == nil: // emptied meanwhile
	case kept == 0:
		p.sweeper = nil
	default:
		p.sweeper.Reset(c.IdleTimeout - now.Sub(p.idle[0].since))
	}
	c.mu.Unlock()
	closeAll(old)
}

// empty removes all connections. The lock is held.
func (p *pool) empty() []*conn {
	idle := p.idle
	p.idle = nil
	if p.sweeper != nil {
		p.sweeper.Stop()
		p.sweeper = nil
	}
	return idle
}

func closeAll(conns []*conn) {
	for _, cn := range conns {
		cn.nc.Close()
	}
}
