package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/clilogin"
	"github.com/doorward/doorward/internal/jose"
)

// loginPatience is how long somebody may take to log in.
const loginPatience = 10 * time.Minute

type loginFlags struct {
	provider, issuer, clientID, resource string
	scopes                               []string
	device, browser, printToken          bool
}

func loginCommand(s *settings) *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [--issuer URL --client-id ID | --provider ID] [--device]",
		Short: "Log in on the command line, to use curl as yourself",
		Long: "Log in with an identity provider and keep the access token in your own settings folder. The login\n" +
			"happens in a browser on this machine, or with --device in a browser anywhere. It needs a public\n" +
			"client of the provider (one without a secret) that may come back to http://127.0.0.1/callback on any\n" +
			"port. --print-token prints a token that is good for a minute at least, refreshed if need be, and\n" +
			"nothing else; without further flags it is the one of the last login. Exits 1 if you are not logged in.",
		Example: "  doorward login --issuer https://login.corp.example.com --client-id doorward-cli\n" +
			"  curl -H \"Authorization: Bearer $(doorward login --print-token)\" https://wiki.corp.example.com/",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, loginPatience)
			defer cancel()
			return f.run(ctx, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&f.provider, "provider", "", "the `id` of a provider in the configuration (default: the only one)")
	cmd.Flags().StringVar(&f.issuer, "issuer", "", "the issuer `URL` of a provider, instead of a configuration")
	cmd.Flags().StringVar(&f.clientID, "client-id", "", "the `id` of the public client (default: the provider's, where it has no secret)")
	cmd.Flags().StringVar(&f.resource, "resource", "", "the `URL` of the application the token is for, where the provider asks for it (RFC 8707)")
	cmd.Flags().StringSliceVar(&f.scopes, "scope", nil, "a `scope` to ask for; may be repeated (default: openid and, where it exists, offline_access)")
	cmd.Flags().BoolVar(&f.device, "device", false, "log in with a code, in a browser on any device")
	cmd.Flags().BoolVar(&f.browser, "browser", false, "open the browser")
	cmd.Flags().BoolVar(&f.printToken, "print-token", false, "print a valid access token and nothing else")
	cmd.MarkFlagsMutuallyExclusive("provider", "issuer")
	cmd.MarkFlagsMutuallyExclusive("device", "browser")
	cmd.MarkFlagsMutuallyExclusive("print-token", "device")
	cmd.MarkFlagsMutuallyExclusive("print-token", "browser")
	return cmd
}

func (f *loginFlags) run(ctx context.Context, s *settings, out, tell io.Writer) error {
	path, err := clilogin.DefaultPath()
	if err != nil {
		return &exitError{code: exitNo, err: err}
	}
	kept := &clilogin.Tokens{Path: path}
	opts := clilogin.Options{Tell: tell, Scopes: f.scopes, Resource: f.resource}
	if f.browser {
		opts.Browser = openBrowser
	}
	if f.printToken {
		err = f.print(ctx, s, kept, opts, out)
	} else {
		err = f.login(ctx, s, kept, opts, tell)
	}
	if err == nil {
		return nil
	}
	if usage, ok := errors.AsType[*exitError](err); ok {
		return usage
	}
	return &exitError{code: exitNo, err: err}
}

func (f *loginFlags) login(ctx context.Context, s *settings, kept *clilogin.Tokens, opts clilogin.Options, tell io.Writer) error {
	if err := f.choose(s, &opts); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	client, err := clilogin.New(opts)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	login := client.Login
	if f.device {
		login = client.LoginDevice
	}
	token, err := login(ctx)
	if err != nil {
		return err
	}
	if err := kept.Keep(ctx, token); err != nil {
		return fmt.Errorf("the login worked, but the token could not be kept: %w", err)
	}
	fmt.Fprintf(tell, "\nYou are logged in with %s. The token is in %s, which only you can read.\n", token.Issuer, kept.Path)
	return nil
}

func (f *loginFlags) print(ctx context.Context, s *settings, kept *clilogin.Tokens, opts clilogin.Options, out io.Writer) error {
	want := clilogin.Want{Issuer: f.issuer, ClientID: f.clientID, Resource: f.resource}
	if f.provider != "" {
		if err := f.choose(s, &opts); err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		want.Issuer, want.ClientID = opts.Issuer, opts.ClientID
	}
	access, err := kept.Valid(ctx, want, time.Now(), func(t clilogin.Token) (*clilogin.Client, error) {
		opts.Issuer, opts.ClientID, opts.Resource = t.Issuer, t.ClientID, t.Resource
		return clilogin.New(opts)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, access)
	return err
}

// choose finds the provider and the client to log in with.
func (f *loginFlags) choose(s *settings, opts *clilogin.Options) error {
	opts.Issuer, opts.ClientID = f.issuer, f.clientID
	if f.issuer != "" {
		if f.clientID == "" {
			return errors.New("--issuer needs --client-id, the id of a public client that is registered there")
		}
		return nil
	}
	cfg, err := config.Load(s.config)
	if err != nil {
		return fmt.Errorf("no --issuer is given, so the provider is looked for in the configuration:\n%w", err)
	}
	p, err := f.configured(cfg.Providers)
	if err != nil {
		return err
	}
	opts.Issuer = p.Issuer
	if opts.ClientID == "" {
		if !p.Public() {
			return fmt.Errorf("provider %s knows Doorward as a client with a secret, which stays on the server: register a public client and name it with --client-id", p.ID)
		}
		opts.ClientID = p.ClientID
	}
	if p.CA != "" {
		opts.Transport, err = trusting(p.CA)
	}
	return err
}

func (f *loginFlags) configured(providers []authn.Provider) (*authn.Provider, error) {
	var ids []string
	for i := range providers {
		if p := &providers[i]; p.ID == f.provider || f.provider == "" && len(providers) == 1 {
			return p, nil
		}
		ids = append(ids, providers[i].ID)
	}
	if f.provider == "" {
		return nil, fmt.Errorf("choose a provider with --provider: %s", strings.Join(ids, ", "))
	}
	return nil, fmt.Errorf("no provider has the id %q; there are %s", f.provider, strings.Join(ids, ", "))
}

// trusting returns a transport that trusts the authorities of a PEM file.
func trusting(file string) (http.RoundTripper, error) {
	pool, err := jose.Authorities(file)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	return transport, nil
}

// openBrowser asks the system to open an address, which it is handed as one
// argument and never as part of a command line.
func openBrowser(address string) error {
	var cmd *exec.Cmd
	switch runtime.GOOS {
	case "darwin":
		cmd = exec.Command("open", address)
	case "windows":
		cmd = exec.Command("rundll32", "url.dll,FileProtocolHandler", address)
	default:
		cmd = exec.Command("xdg-open", address)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait()
	return nil
}
