package serve

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

// adminInstance implements admin.Instance.
type adminInstance struct {
	*live
	started time.Time
}

func (a adminInstance) State() admin.State {
	now := a.current.Load()
	s := admin.State{
		Started: a.started, Config: now.cfg.Version, Loaded: now.at, File: now.cfg.Path, InFlight: a.door.InFlight(),
		Store: storeName(now.cfg), Certificates: a.shownCertificates(),
		Audit: a.records.state(),
	}
	s.Audit.Required = now.cfg.Audit.Required
	if failed := a.refused.Load(); failed != nil {
		s.Failed, s.Failure = failed.at, failed.text
	}
	s.Candidate, s.CandidateFailure = a.candidate.state()
	if a.shared != nil {
		s.StoreFailure = said(a.shared.Err())
	}
	ready := now.authn.Ready()
	for i := range now.cfg.Providers {
		id := now.cfg.Providers[i].ID
		s.Providers = append(s.Providers, admin.ProviderState{ID: id, Failure: said(ready[id])})
	}
	return s
}

func (a adminInstance) Routes() (list []admin.RouteInfo) {
	cfg := a.current.Load().cfg
	general, targets := cfg.Defaults.Require, map[string][]admin.Target{}
	for _, u := range a.door.Upstreams() {
		for i := range u.Targets {
			t := &u.Targets[i]
			target := admin.Target{Address: t.Address, State: t.State, Used: t.Used(), Open: t.Open, Waiting: t.Waiting}
			if t.State != "up" {
				target.Since, target.Failure = t.Since, t.LastError
			}
			targets[u.Route] = append(targets[u.Route], target)
		}
	}
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		info := admin.RouteInfo{Route: r, Login: r.Require.Login, Targets: targets[r.ID]}
		if general.Device != "" && r.Exceptions.Device == "" {
			info.Device = append(info.Device, general.Device)
		}
		if r.Require.Device != "" && !slices.Contains(info.Device, r.Require.Device) {
			info.Device = append(info.Device, r.Require.Device)
		}
		if r.Exceptions.Login == "" {
			info.Login = general.Login.And(r.Require.Login)
		}
		if len(info.Targets) == 0 { // a tunnel's
			for _, to := range r.To {
				info.Targets = append(info.Targets, admin.Target{Address: to, Used: true})
			}
		}
		list = append(list, info)
	}
	return list
}

func (a adminInstance) Settings() (list []admin.Setting) {
	for _, s := range a.current.Load().cfg.Settings() {
		list = append(list, admin.Setting{Key: s.Path, Value: s.Value, Line: s.Line})
	}
	return list
}

// Actions implements admin.Activity.
func (a adminInstance) Actions(limit int) []*access.Event { return a.records.actions.last(limit) }

// shownCertificates are those that visitors are shown, from files and from ACME.
func (l *live) shownCertificates() (list []admin.Certificate) {
	if l.tls == nil {
		return nil
	}
	for _, leaf := range l.tls.Leaves() {
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		list = append(list, admin.Certificate{Hosts: names, Source: "a file", NotAfter: leaf.NotAfter})
	}
	if l.current.Load().cfg.Server.TLS.ACME.Enabled() {
		for _, s := range l.issuer.Status() {
			list = append(list, admin.Certificate{Hosts: []string{s.Host}, Source: "ACME", NotAfter: s.NotAfter, Failure: s.Error})
		}
	}
	return list
}

// storeName says where sessions are kept.
func storeName(cfg *config.Config) string {
	switch kept := &cfg.Sessions.Store; {
	case kept.Redis != nil:
		return "Redis"
	case kept.Memory:
		return "memory"
	}
	return "a file"
}

// said is the text of an error, empty without one.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refused is a configuration that was not taken over.
type refused struct {
	at   time.Time
	text string
}

// adminDoor implements admin.Door with the configuration in force.
type adminDoor struct{ *live }

var errNoAdminRoute = errors.New("server.admin.route names no route")

func (a adminDoor) Admit(ctx context.Context, assertion string) (admin.Person, error) {
	now := a.current.Load()
	origin := now.adminOrigin
	if origin == "" {
		return admin.Person{}, errNoAdminRoute
	}
	who, err := a.door.VerifyAssertion(ctx, assertion, origin)
	if err != nil {
		return admin.Person{}, err
	}
	person := admin.Person{User: who.User, Name: who.User, Origin: origin, MayAct: mayAct(who.Groups, now.cfg.Server.Admin.ViewGroups)}
	for _, name := range []string{who.Email, who.Name} {
		if name != "" {
			person.Name = name
			break
		}
	}
	return person, nil
}

// adminOrigin is the origin of the route to the admin pages; empty if there is none.
func adminOrigin(cfg *config.Config) string {
	at, ok := cfg.Table.Addresses()[cfg.Server.Admin.Route]
	if !ok || cfg.Server.Admin.Route == "" {
		return ""
	}
	return at.Scheme + "://" + at.Host
}

// mayAct reports whether somebody is in a group that does more than look.
func mayAct(groups, viewers []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return !slices.Contains(viewers, g) })
}
