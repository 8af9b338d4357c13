package config

import (
	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
	"github.com/doorward/doorward/signals"
)

// File is the whole configuration file. Each section is the type of the package
// that acts on it.
type File struct {
	// Version is the version of this format: 1. Required.
	Version int `yaml:"version"`
	// Server says where Doorward listens and whom it believes.
	Server Server `yaml:"server"`
	// Providers lists the identity providers that visitors log in with. A person
	// is the pair of issuer and subject, never an e-mail address.
	Providers []authn.Provider `yaml:"providers"`
	// Sessions says how long a login lasts and where it is kept.
	Sessions session.Config `yaml:"sessions"`
	// Devices says where facts about devices come from and what they are worth.
	Devices devicecheck.Config `yaml:"devices"`
	// Signals lists who reports changes that happen elsewhere: sessions that end,
	// devices that are not compliant any more (OpenID Shared Signals Framework).
	Signals []signals.Transmitter `yaml:"signals"`
	// Groups gives names to sets of people. Rules may use no other names.
	Groups map[string]access.Group `yaml:"groups"`
	// Defaults holds for every route. A route may only tighten it.
	Defaults access.Defaults `yaml:"defaults"`
	// Routes lists the protected applications. A request belongs to exactly one
	// of them; their order means nothing.
	Routes []access.Route `yaml:"routes"`
	// Shadow names another configuration file whose policy decides on every
	// request, too, without being enforced: what it would change is recorded and
	// counted. It is loaded as strictly as this one and watched; with a mistake
	// in it, it is reported and switched off. Its `shadow` means nothing.
	Shadow string `yaml:"shadow"`
	// Audit says where the record of every decision is written.
	Audit audit.Config `yaml:"audit"`
	// Tests are requests of people who are only imagined, with what the policy has
	// to say to them; `doorward test` runs them. More may stand in files beside this
	// one whose names end in `_test.yaml`.
	Tests []Test `yaml:"tests"`
	// Accept lists findings of `doorward check` that are as they should be, each
	// with the reason in writing.
	Accept []Acceptance `yaml:"accept"`
	// Log says what the operator's log on standard error holds.
	Log telemetry.Config `yaml:"log"`
}

// Server is the section `server`: the listener for visitors and, apart from it,
// the one for operators.
type Server struct {
	proxy.Config `yaml:",inline"`
	// Admin is the listener for health checks, metrics and status.
	Admin admin.Config `yaml:"admin"`
}

// Validate reports every mistake in the section.
func (s *Server) Validate(f access.Faults) {
	s.Config.Validate(f)
	s.Admin.Validate(f.At("admin"))
}
