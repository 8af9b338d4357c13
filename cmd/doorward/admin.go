package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

// adminFlags are those of every command that asks a running doorward.
type adminFlags struct {
	settings *settings
	url      string
}

// register adds the flags to a command and its subcommands, which get a client
// from connect.
func (f *adminFlags) register(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.url, "admin", "", "`URL` of the admin listener (default: as the configuration says)")
}

// adminTimeout bounds one question.
const adminTimeout = 30 * time.Second

// adminClient asks the admin API of a running doorward.
type adminClient struct {
	base  string
	token access.Secret
	http  *http.Client
}

// connect returns a client for the doorward of the configuration. The address
// and the token come from there; --admin names another address.
func (f *adminFlags) connect() (*adminClient, error) {
	cfg, err := config.Load(f.settings.config)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	base, err := adminURL(cfg.Server.Admin.Address(), f.url)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	if cfg.Server.Admin.Token.Reveal() == "" {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s names no server.admin.token, so nobody may do this; make one with `openssl rand -base64 32`, "+
			"keep it in a file, write server: {admin: {token: {file: PATH}}} and reload", f.settings.config)}
	}
	return &adminClient{base: base, token: cfg.Server.Admin.Token, http: &http.Client{
		Timeout: adminTimeout,
		// Neither a proxy of the environment nor another address gets the token.
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// adminURL returns where to ask, by default the listener itself. The token does
// not travel to other machines in plaintext.
func adminURL(listen, override string) (string, error) {
	if override == "" {
		u := (&admin.Config{Listen: listen}).URL()
		host, _, err := net.SplitHostPort(strings.TrimPrefix(u, "http://"))
		if err != nil {
			return "", fmt.Errorf("server.admin.listen: %w", err)
		}
		if !access.Loopback(host) && !ownAddress(host) {
			return "", fmt.Errorf("server.admin.listen %s is not on this machine, and the token would travel there in plaintext; "+
				"run this there, or name the address with --admin https://…", listen)
		}
		return u, nil
	}
	u, err := url.Parse(override)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("--admin %q is no address; write http://127.0.0.1:9901 or https://doorward-admin.example.com", override)
	}
	if u.Scheme == "http" && !access.Loopback(u.Hostname()) {
		return "", fmt.Errorf("--admin %s would send the token to another machine in plaintext; use https, or forward the port "+
			"(ssh -L 9901:127.0.0.1:9901, kubectl port-forward) and name the local end", override)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// ownAddress reports whether every address of a host is one of this machine's.
func ownAddress(host string) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	addresses, err := net.LookupIP(host)
	if err != nil {
		return false
	}
	for _, address := range addresses {
		if !slices.ContainsFunc(own, func(a net.Addr) bool {
			network, ok := a.(*net.IPNet)
			return ok && network.IP.Equal(address)
		}) {
			return false
		}
	}
	return len(addresses) > 0
}

// get reads an address of the API into an answer.
func (c *adminClient) get(ctx context.Context, path string, answer any) error {
	return c.do(ctx, http.MethodGet, path, nil, answer)
}

// post does something. The body embeds an admin.Deed from deed.
func (c *adminClient) post(ctx context.Context, path string, body, answer any) error {
	return c.do(ctx, http.MethodPost, path, body, answer)
}

const maxAdminAnswer = 64 << 20

func (c *adminClient) do(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return &exitError{code: exitNo, err: fmt.Errorf("no doorward answers at %s (%v); start it, or name its admin listener with --admin", c.base, op.Err)}
		}
		return &exitError{code: exitNo, err: fmt.Errorf("asking %s: %w", c.base, err)}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAdminAnswer))
	if err != nil {
		return &exitError{code: exitNo, err: fmt.Errorf("reading the answer of %s: %w", c.base, err)}
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, answer); err != nil {
			return &exitError{code: exitNo, err: fmt.Errorf("%s answered something else than doorward does; is it the admin listener?", c.base)}
		}
		return nil
	}
	return &exitError{code: exitNo, err: c.refusal(res.StatusCode, text)}
}

// refusal words an answer that is no success.
func (c *adminClient) refusal(status int, text []byte) error {
	var fault admin.Fault
	if json.Unmarshal(text, &fault) != nil || fault.Text == "" {
		return fmt.Errorf("%s answered %d: %s", c.base, status, strings.TrimSpace(string(text[:min(len(text), 300)])))
	}
	switch status {
	case http.StatusUnauthorized:
		return fmt.Errorf("the doorward at %s does not accept the token of this configuration; is it running with another one? Reload it (SIGHUP), or name its own with --config", c.base)
	case http.StatusForbidden:
		return fmt.Errorf("the doorward at %s has no token: %s", c.base, fault.Error())
	}
	return errors.New(fault.Error())
}

// deed says who asks, for the audit log: the user of the operating system.
func deed(why string) admin.Deed {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" && sudo != name {
		name += " (sudo by " + sudo + ")"
	}
	return admin.Deed{Actor: name, Why: why}
}

// whyFlag adds --why, which every action needs.
func whyFlag(cmd *cobra.Command, why *string) {
	cmd.Flags().StringVar(why, "why", "", "the `reason`, for the audit log")
	cmd.MarkFlagRequired("why")
}
