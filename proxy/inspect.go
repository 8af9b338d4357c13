package proxy

import "github.com/doorward/doorward/internal/access"

// inspect is station 4: on what device. What is not known stays Unknown, which
// satisfies no requirement.
func (p *passage) inspect() {
	if p.gen.Inspect == nil {
		return
	}
	r, end := p.part("inspect")
	err := p.gen.Inspect.Inspect(r, p.req)
	end(access.ReasonOf(err))
	if err != nil {
		p.req.Device = access.Device{}
		p.fault("inspect", err)
		return
	}
	p.inspectHeaders(&p.req.Device)
	p.inspectRevoked()
}

// inspectHeaders tells of a certificate that a header held. One that a listed
// proxy handed on and that cannot be read is worth as much as one that cannot be
// verified. One from anybody else was removed, which is said where the device is
// not identified otherwise.
func (p *passage) inspectHeaders(d *access.Device) {
	if d.Problem == "" && (p.certificate == access.DeviceCertInvalid || p.certificate != "" && d.ID == "") {
		*d = access.Device{ID: d.ID, MatchedBy: d.MatchedBy, Problem: p.certificate}
	}
}
