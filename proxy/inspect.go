package proxy

import "github.com/doorward/doorward/internal/access"

// inspect is station 4: on what device. What is not known stays Unknown, which
// satisfies no requirement.
func (p *passage) inspect() {
	if p.gen.Inspect == nil {
		return
	}
	if err := p.gen.Inspect.Inspect(p.in, p.req); err != nil {
		p.req.Device = access.Device{}
		p.fault("inspect", err)
	}
}
