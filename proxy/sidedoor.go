package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/doorward/doorward/internal/access"
)

// SideDoor is a listener on which a front end asks what Doorward decides about a
// request that the front end forwards itself. What it says about the request
// counts, so that nobody else may reach it. It is apart from the listener for
// visitors, whom a front end also lets through to Doorward's own addresses.
type SideDoor struct {
	// Listen is the address to listen on, `127.0.0.1:9902`, or a socket on this
	// machine, `unix:/run/doorward/auth.sock`, that its owner and group may open.
	// Default: nobody may ask.
	Listen string `yaml:"listen"`
	// Peers lists the addresses (`10.0.0.7`, `10.1.0.0/24`) of the front ends that
	// may ask. Required unless only this machine can reach the address, or
	// client_ca is set.
	Peers []string `yaml:"peers"`
	// Cert and Key are PEM files to speak TLS with.
	Cert string `yaml:"cert" doorward:"file"`
	// Key belongs to Cert.
	Key string `yaml:"key" doorward:"file"`
	// ClientCA is a PEM file with the authorities that issue the certificates of
	// front ends. With it only a front end that shows one may ask.
	ClientCA string `yaml:"client_ca" doorward:"file"`
	// Names lists the names (DNS or URI, such as a SPIFFE ID) of which a front
	// end's certificate must carry one. Default: every certificate of client_ca.
	Names []string `yaml:"names"`
}

// Enabled reports whether anybody may ask.
func (c *SideDoor) Enabled() bool { return c.Listen != "" }

const unixScheme = "unix:"

// Validate reports every mistake in the section.
func (c *SideDoor) Validate(f access.Faults) {
	if !c.Enabled() {
		if len(c.Peers)+len(c.Names) > 0 || c.Cert != "" || c.Key != "" || c.ClientCA != "" {
			f.At("listen").Add("add listen: 127.0.0.1:9902", "nothing of this takes effect without an address to listen on")
		}
		return
	}
	near := c.validateListen(f.At("listen"))
	for i, text := range c.Peers {
		at := f.At("peers[%d]", i)
		switch prefix, err := parsePrefix(text); {
		case err != nil:
			at.Add("write 10.0.0.7 or 10.1.0.0/24", "%q is no address or network", text)
		case prefix.Bits() == 0:
			at.Add("list the front ends", "%q would let everybody ask", text)
		}
	}
	if !near && len(c.Peers) == 0 && c.ClientCA == "" {
		f.At("peers").Add("list the front ends, or demand certificates with client_ca", "everybody who reaches %s could ask", c.Listen)
	}
	switch {
	case (c.Cert == "") != (c.Key == ""):
		f.At("cert").Add("give both or none", "cert and key belong together")
	case c.ClientCA != "" && c.Cert == "":
		f.At("client_ca").Add("add cert and key", "certificates of front ends need a listener that speaks TLS")
	case len(c.Names) > 0 && c.ClientCA == "":
		f.At("names").Add("add client_ca", "nobody shows a certificate that could carry a name")
	}
}

// validateListen also reports whether only this machine can reach the address.
func (c *SideDoor) validateListen(f access.Faults) (near bool) {
	if path, ok := strings.CutPrefix(c.Listen, unixScheme); ok {
		if !filepath.IsAbs(path) {
			f.Add("write unix:/run/doorward/auth.sock", "%q is no absolute path", path)
		}
		return true
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		f.Add("write 127.0.0.1:9902 or unix:/run/doorward/auth.sock", "%q is no address to listen on", c.Listen)
	}
	return err != nil || access.Loopback(host)
}

// Open opens the listener. A socket that is left over is replaced.
func (c *SideDoor) Open() (net.Listener, error) {
	path, ok := strings.CutPrefix(c.Listen, unixScheme)
	if !ok {
		return net.Listen("tcp", c.Listen)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("%s is in use", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// TLS reads the certificate files. It returns nil for a listener without TLS.
func (c *SideDoor) TLS() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.Cert, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: nextProtos, Certificates: []tls.Certificate{cert}}
	if c.ClientCA != "" {
		pool, _, err := readPool(c.ClientCA)
		if err != nil {
			return nil, err
		}
		conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return conf, nil
}

// SideTLS holds what a side door speaks. It can be replaced while the listener
// serves; connections that are open keep what they were made with.
type SideTLS struct{ current atomic.Pointer[tls.Config] }

// Use takes up a configuration that SideDoor.TLS has read, for every handshake
// from here on.
func (t *SideTLS) Use(conf *tls.Config) { t.current.Store(conf) }

// Leaves returns the certificates that are served, if any are.
func (t *SideTLS) Leaves() []*x509.Certificate {
	conf := t.current.Load()
	if conf == nil {
		return nil
	}
	return leavesOf(conf)
}

// Config returns the configuration for the listener. It always uses what was
// taken up last.
func (t *SideTLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: nextProtos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load(), nil },
	}
}

// Asker is how a front end has reached a side door: the other end of its
// connection, and TLS if there was any.
type Asker struct {
	Addr netip.Addr // invalid for a unix socket
	TLS  *tls.ConnectionState
}

func askerOf(r *http.Request) Asker { return Asker{peerAddr(r.RemoteAddr), r.TLS} }

// admits reports whether a front end may ask: it is listed, or nobody has to be,
// and its certificate, which TLS has verified, carries one of the names. Nobody
// has to be listed where certificates are demanded, or where only this machine
// reaches the address. The latter is looked at anew: after a reload the listener
// may still be another one than the section says, or one that it does not want.
func (c *SideDoor) admits(a Asker) bool {
	bySocket := !a.Addr.IsValid() && strings.HasPrefix(c.Listen, unixScheme)
	switch {
	case !c.Enabled():
		return false
	case c.ClientCA != "" && (a.TLS == nil || len(a.TLS.VerifiedChains) == 0 || !c.named(a.TLS)):
		return false
	case len(c.Peers) > 0:
		return bySocket || c.lists(a.Addr)
	}
	return c.ClientCA != "" || bySocket || a.Addr.IsLoopback()
}

func (c *SideDoor) lists(addr netip.Addr) bool {
	return slices.ContainsFunc(c.Peers, func(text string) bool {
		prefix, err := parsePrefix(text)
		return err == nil && prefix.Contains(addr)
	})
}

func (c *SideDoor) named(state *tls.ConnectionState) bool {
	if len(c.Names) == 0 {
		return true
	}
	leaf := state.VerifiedChains[0][0]
	names := slices.Clone(leaf.DNSNames)
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(c.Names, name) })
}
