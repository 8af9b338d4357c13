package admin

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// DefaultListen is where the admin listener listens unless told otherwise.
const DefaultListen = "127.0.0.1:9901"

// Config is the section `server.admin` of the configuration file.
type Config struct {
	// Listen is the address of the listener for health checks, metrics and
	// status, apart from visitors: `127.0.0.1:9901` (the default), or `:9901` in
	// a container. It speaks plain HTTP: keep it off public networks.
	Listen string `yaml:"listen"`
	// Token is the secret of at least 32 bytes that opens the API to programs, and
	// the pages to whoever reaches the listener from this machine, such as through
	// an SSH tunnel: `{file: PATH}` or `{env: NAME}`. The commands that look at
	// sessions, devices and decisions, or end access, read it from the same
	// configuration. Default: none, and nobody may.
	Token access.Secret `yaml:"token"`
	// Route is the id of the route by which people reach the pages. It must lead to
	// this listener and to nothing else, from a host of its own, demand a strong
	// login (`acr`, `amr` or `phishing_resistant` in its `require.login`), and let in
	// nobody but named groups. Default: there is none.
	Route string `yaml:"route"`
	// ViewGroups lists groups whose members look at the pages and change nothing.
	// Who is also in another group that the route lets in may do both. Default:
	// whoever is let in may do both.
	ViewGroups []string `yaml:"view_groups"`
	// Hosts lists further names under which the listener may be asked, such as
	// `doorward.ops.internal`. IP addresses, localhost and a name in `listen`
	// always work; any other name is refused, so that no web page can reach the
	// listener through a browser (DNS rebinding).
	Hosts []string `yaml:"hosts"`
}

// minToken is the length of the shortest token, in bytes. It is compared as it
// is, so it has to be long enough that nobody guesses it.
const minToken = 32

// Address returns where to listen.
func (c *Config) Address() string {
	if c.Listen == "" {
		return DefaultListen
	}
	return c.Listen
}

// URL is where this machine reaches the listener. One on all addresses is reached
// by loopback.
func (c *Config) URL() string {
	host, port, err := net.SplitHostPort(c.Address())
	if err != nil {
		return "http://" + c.Address() // Validate says so
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
	at := f.At("listen")
	if _, port, err := net.SplitHostPort(c.Address()); err != nil {
		at.Add("write HOST:PORT, as in "+DefaultListen, "%q is not an address", c.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		at.Add("write a number from 0 to 65535", "%q is not a port", port)
	}
	// An empty value was not read yet, or could not be; whoever reads it says so.
	if n := len(c.Token.Reveal()); n > 0 && n < minToken {
		f.At("token").Add("make one with: openssl rand -base64 32", "the token has %d bytes, at least %d are needed", n, minToken)
	}
	if len(c.ViewGroups) > 0 && c.Route == "" {
		f.At("view_groups").Add("add route, or remove view_groups", "nobody comes by a route, and who has the token is in no group")
	}
	for i, host := range c.Hosts {
		if host == "" || strings.ContainsAny(host, ":/*@ ") || strings.Trim(host, ".") != host {
			f.At("hosts[%d]", i).Add("write a host name without scheme and port, as in doorward.ops.internal", "%q is not a host name", host)
		}
	}
}

// answersTo reports whether the listener may be asked under the name in a Host
// header. A page of another site can make a browser send any name, but only one
// that leads here by the site's own DNS, never an address or localhost.
func (c *Config) answersTo(header string) bool {
	host := header
	if h, port, err := net.SplitHostPort(header); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		host = h
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return addr.Zone() == ""
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" || strings.ContainsAny(host, ":[]/ ") {
		return false
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if own, _, err := net.SplitHostPort(c.Address()); err == nil && strings.EqualFold(own, host) {
		return true
	}
	for _, name := range c.Hosts {
		if strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}
