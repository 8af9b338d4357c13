package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Issued returns the hosts that certificates are to be obtained for, sorted: those
// that server.tls.acme lists, or else every host that visitors reach by https, as
// far as its owner can be proven.
func (f *File) Issued() []string {
	acme := &f.Server.TLS.ACME
	if !acme.Enabled() {
		return nil
	}
	hosts := slices.Clone(acme.Hosts)
	if len(hosts) == 0 {
		addresses := []string{f.Server.AuthURL}
		for i := range f.Routes {
			addresses = append(addresses, f.Routes[i].From)
		}
		for _, address := range addresses {
			u, err := url.Parse(address)
			if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.HasPrefix(u.Host, "*") {
				continue
			}
			if _, err := netip.ParseAddr(u.Hostname()); err != nil {
				hosts = append(hosts, strings.ToLower(u.Hostname()))
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// checkCertificates reports hosts for which there will never be a certificate,
// as far as no file can hold one.
func checkCertificates(f *File, at access.Faults) {
	if !f.Server.TLS.ACME.Enabled() || len(f.Server.TLS.Certificates) > 0 {
		return
	}
	issued := f.Issued()
	if len(issued) == 0 {
		at.At("server.tls.acme").Add("add a route from https://app.example.com, or list hosts", "there is no host to obtain a certificate for")
	}
	missing := func(at access.Faults, address string) {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || slices.Contains(issued, strings.ToLower(u.Hostname())) {
			return
		}
		at.Add("put a certificate for it into server.tls.certificates, or add it to server.tls.acme.hosts if it is a plain name",
			"no certificate is obtained for %s", u.Hostname())
	}
	missing(at.At("server.auth_url"), f.Server.AuthURL)
	for i := range f.Routes {
		missing(at.At("routes[%d].from", i), f.Routes[i].From)
	}
}
