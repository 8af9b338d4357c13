package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/doorward/doorward/proxy"
)

// locate deals with the paths in decoded sections that do not follow from a
// field's tag: what is written, or watched by its owner, is only made absolute;
// certificates must be readable and fit their keys.
func (d *decoder) locate(f *File) {
	d.absolute(&f.Sessions.Store.File.Path)
	for i := range f.Audit.To {
		d.absolute(&f.Audit.To[i].File.Path)
		d.absolute(&f.Audit.To[i].Spool.Dir)
	}
	for i := range f.Devices.Sources {
		d.absolute(&f.Devices.Sources[i].Path)
	}
	for i, entry := range f.Devices.Certificates.Revocation.CRLs {
		if !strings.Contains(entry, "://") {
			d.absolute(&f.Devices.Certificates.Revocation.CRLs[i])
		}
	}
	for i := range f.Providers {
		at, provider := fmt.Sprintf("providers[%d]", i), &f.Providers[i]
		d.authorities(at+".ca", &provider.CA)
		d.absolute(&provider.Kubernetes.TokenFile) // it comes and changes with the pod; read for every question
		mtls := &provider.ClientAuth.MTLS
		d.certificate(at+".client_auth.mtls.cert", &mtls.Cert, at+".client_auth.mtls.key", &mtls.Key)
	}
	for i := range f.Signals {
		d.authorities(fmt.Sprintf("signals[%d].ca", i), &f.Signals[i].CA)
	}
	for i := range f.Routes {
		at, upstream := fmt.Sprintf("routes[%d].upstream_tls", i), &f.Routes[i].UpstreamTLS
		d.authorities(at+".ca", &upstream.CA)
		d.certificate(at+".client_cert", &upstream.ClientCert, at+".client_key", &upstream.ClientKey)
	}
	d.sideDoor("server.forward_auth", &f.Server.ForwardAuth)
	d.sideDoor("server.ext_authz", &f.Server.ExtAuthz)
	d.sideDoor("server.spoe", &f.Server.SPOE)
	d.authorities("server.tls.client_ca", &f.Server.TLS.ClientCA)
	for i := range f.Server.TLS.Certificates {
		at, pair := fmt.Sprintf("server.tls.certificates[%d]", i), &f.Server.TLS.Certificates[i]
		d.certificate(at+".cert", &pair.Cert, at+".key", &pair.Key)
	}
}

func (d *decoder) absolute(path *string) {
	if *path != "" {
		*path = d.files.absolute(*path)
	}
}

// readable makes a path absolute and reports a file that cannot be read. It
// returns false also for a path that is not set or was reported before.
func (d *decoder) readable(at string, path *string) bool {
	if *path == "" || d.lost(at) {
		return false
	}
	d.absolute(path)
	if err := d.files.check(*path); err != nil {
		d.refuse(at, fileCure(err), "the file %s cannot be read: %v", *path, cause(err))
		return false
	}
	return true
}

// refuse reports a mistake in a field that was decoded.
func (d *decoder) refuse(at, cure, format string, args ...any) {
	d.unread(at)
	d.add(d.where.find(at), at, cure, format, args...)
}

// sideDoor checks the files of a listener for front ends.
func (d *decoder) sideDoor(at string, side *proxy.SideDoor) {
	d.authorities(at+".client_ca", &side.ClientCA)
	d.certificate(at+".cert", &side.Cert, at+".key", &side.Key)
}

// authorities checks a PEM file of certificate authorities.
func (d *decoder) authorities(at string, path *string) {
	if !d.readable(at, path) {
		return
	}
	if text, err := os.ReadFile(*path); err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		d.refuse(at, "name a PEM file with BEGIN CERTIFICATE in it", "the file %s holds no certificate", *path)
	}
}

// certificate checks a certificate with its key.
func (d *decoder) certificate(certAt string, cert *string, keyAt string, key *string) {
	certOK, keyOK := d.readable(certAt, cert), d.readable(keyAt, key)
	if !certOK || !keyOK {
		return
	}
	if _, err := tls.LoadX509KeyPair(*cert, *key); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		d.refuse(certAt, "name the PEM files of one certificate and its key", "%s and %s do not make a certificate: %v", *cert, *key, err)
	}
}
