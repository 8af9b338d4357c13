package authn

import (
	"net/http"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
)

// choose finds the provider for a login: the one that was asked for, the only
// one, the one an e-mail address belongs to, or the one used last. Nil: the
// visitor has to say.
func (a *Authenticator) choose(lr *loginRequest, j *jar) *client {
	if c := a.clients[lr.Provider]; c != nil {
		return c
	}
	if len(a.order) == 1 {
		return a.order[0]
	}
	if lr.Email != "" {
		c := a.byEmail(lr.Email)
		if c != nil {
			lr.Hint = lr.Email
		}
		return c
	}
	if lr.Switch {
		return nil
	}
	return a.clients[j.Last]
}

// byEmail finds the provider of a mail domain. This only saves a choice: who may
// enter is decided by issuer and subject, never by an address.
func (a *Authenticator) byEmail(address string) *client {
	at := strings.LastIndexByte(address, '@')
	if at < 1 {
		return nil
	}
	domain := strings.ToLower(strings.TrimSpace(address[at+1:]))
	for _, c := range a.order {
		if slices.Contains(c.cfg.EmailDomains, domain) {
			return c
		}
	}
	return nil
}

// askWhere shows the chooser. Away from the login page it redirects there, so
// that the choice has an address of its own.
func (a *Authenticator) askWhere(w http.ResponseWriter, req *access.Request, lr loginRequest) error {
	if len(a.order) == 0 {
		return access.Becausef(access.ProviderUnavailable, "no provider is configured")
	}
	if req.Path != access.LoginPath {
		redirect(w, req.Origin()+access.LoginPath+"?"+lr.values().Encode())
		return nil
	}
	lr.Provider = ""
	data := page.ChooserData{App: strings.TrimPrefix(lr.To, schemeOf(lr.To)+"://"), Email: lr.Email}
	if data.App == "" {
		data.App = req.Host
	}
	if lr.Email != "" {
		data.Error = "No way to log in is set up for this address."
	}
	for _, c := range a.order {
		choice := lr
		choice.Provider = c.cfg.ID
		data.Choices = append(data.Choices, page.Choice{Name: c.cfg.displayName(), URL: access.LoginPath + "?" + choice.values().Encode()})
		if len(c.cfg.EmailDomains) > 0 {
			data.EmailAction = access.LoginPath
		}
	}
	if data.EmailAction != "" {
		data.Hidden = map[string]string{}
		for name, values := range lr.values() {
			data.Hidden[name] = values[0]
		}
	}
	page.Chooser(w, data)
	return nil
}
