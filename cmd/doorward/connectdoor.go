package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/doorward/doorward/internal/clilogin"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/tunnel"
)

// doorFlags say which door to go through, and as whom.
type doorFlags struct {
	server, ca, cert, key, passwordFile, form string
	issuer, clientID, resource                string
	scopes                                    []string
	device, browser                           bool
}

// serverVariable names the door where no flag does.
const serverVariable = "DOORWARD_SERVER"

func (f *doorFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.server, "server", os.Getenv(serverVariable), "the `URL` of the door (default: $"+serverVariable+")")
	flags.StringVar(&f.ca, "ca", os.Getenv("DOORWARD_CA"), "a PEM `file` with the authorities that vouch for the door (default: $DOORWARD_CA, or the system's)")
	flags.StringVar(&f.cert, "cert", "", "the certificate of this device, a PEM or PKCS#12 `file`")
	flags.StringVar(&f.key, "key", "", "its private key, a PEM `file` (default: in the same file)")
	flags.StringVar(&f.passwordFile, "password-file", "", "a `file` with the password of the PKCS#12 file")
	flags.StringVar(&f.form, "form", "", "the `form` of tunnels: connect-tcp, websocket or CONNECT (default: what passes)")
	flags.StringVar(&f.issuer, "issuer", "", "the issuer `URL` of the provider to log in with (default: the last login)")
	flags.StringVar(&f.clientID, "client-id", "", "the `id` of the public client to log in with")
	flags.StringVar(&f.resource, "resource", "", "the `URL` the token is for, where the provider asks for it (RFC 8707)")
	flags.StringSliceVar(&f.scopes, "scope", nil, "a `scope` to ask for; may be repeated")
	flags.BoolVar(&f.device, "device", false, "log in with a code, in a browser on any device")
	flags.BoolVar(&f.browser, "browser", false, "open the browser to log in")
}

// open returns the door. Every error is one of the command line.
func (f *doorFlags) open(tell io.Writer) (*tunnel.Door, error) {
	if f.server == "" {
		return nil, fmt.Errorf("say which door to go through, with --server https://door.corp.example.com or by %s", serverVariable)
	}
	if (f.issuer == "") != (f.clientID == "") {
		return nil, errors.New("--issuer and --client-id belong together")
	}
	authorities, err := jose.Authorities(f.ca)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: authorities}
	if f.cert != "" {
		cert, err := f.certificate()
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{cert}
	} else if f.key != "" || f.passwordFile != "" {
		return nil, errors.New("--key and --password-file belong to --cert")
	}
	path, err := clilogin.DefaultPath()
	if err != nil {
		return nil, err
	}
	who := &caller{doorFlags: f, kept: &clilogin.Tokens{Path: path}, tell: tell}
	return tunnel.New(tunnel.Options{Server: f.server, TLS: conf, Form: f.form, Token: who.token})
}

// certificate reads the certificate of the device.
func (f *doorFlags) certificate() (tls.Certificate, error) {
	text, err := os.ReadFile(f.cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	if block, _ := pem.Decode(text); block != nil {
		key := text
		if f.key != "" {
			if key, err = os.ReadFile(f.key); err != nil {
				return tls.Certificate{}, err
			}
		}
		cert, err := tls.X509KeyPair(text, key)
		if err != nil {
			return cert, fmt.Errorf("%s: %w", f.cert, err)
		}
		return cert, nil
	}
	password := ""
	if f.passwordFile != "" {
		text, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return tls.Certificate{}, err
		}
		password = strings.TrimRight(string(text), "\r\n")
	}
	key, leaf, chain, err := pkcs12.DecodeChain(text, password)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s is neither PEM nor PKCS#12 that opens with this password: %w", f.cert, err)
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for _, one := range chain {
		cert.Certificate = append(cert.Certificate, one.Raw)
	}
	return cert, nil
}

// caller is the person who runs the command.
type caller struct {
	*doorFlags
	kept *clilogin.Tokens
	tell io.Writer
	mu   sync.Mutex // one login at a time
}

// token returns a token that is good for a while: the kept one, refreshed if need
// be, or that of a new login. A certificate does without.
func (c *caller) token(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	opts := clilogin.Options{Tell: c.tell, Scopes: c.scopes, Resource: c.resource}
	token, err := c.kept.Valid(ctx, clilogin.Want{Issuer: c.issuer, ClientID: c.clientID, Resource: c.resource}, time.Now(), func(t clilogin.Token) (*clilogin.Client, error) {
		opts.Issuer, opts.ClientID, opts.Resource = t.Issuer, t.ClientID, t.Resource
		return clilogin.New(opts)
	})
	switch {
	case !errors.Is(err, clilogin.ErrNotLoggedIn):
		return token, err
	case c.issuer != "":
		return c.login(ctx, opts)
	case c.cert != "":
		return "", nil
	}
	return "", err
}

func (c *caller) login(ctx context.Context, opts clilogin.Options) (string, error) {
	opts.Issuer, opts.ClientID, opts.Resource = c.issuer, c.clientID, c.resource
	if c.browser {
		opts.Browser = openBrowser
	}
	client, err := clilogin.New(opts)
	if err != nil {
		return "", &exitError{code: exitUsage, err: err}
	}
	login := client.Login
	if c.device {
		login = client.LoginDevice
	}
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	token, err := login(ctx)
	if err != nil {
		return "", &exitError{code: exitLogin, err: fmt.Errorf("the login did not work: %w", err)}
	}
	if err := c.kept.Keep(ctx, token); err != nil {
		return "", fmt.Errorf("the login worked, but the token could not be kept: %w", err)
	}
	return token.Access, nil
}

// sshConfigCommand prints what makes ssh go through the door by itself.
func sshConfigCommand(f *doorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-config [HOST ...]",
		Short: "Print the block for ~/.ssh/config",
		Long: "Print the lines for ~/.ssh/config by which ssh, scp, sftp, rsync and git reach hosts through the door. A\n" +
			"HOST may be a pattern such as *.build.corp.example.com.",
		Example: "  doorward connect ssh-config --server https://door.corp.example.com '*.build.corp.example.com' >> ~/.ssh/config",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, hosts []string) error {
			if _, err := f.open(cmd.ErrOrStderr()); err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			program, err := os.Executable()
			if err != nil {
				program = "doorward"
			}
			fmt.Fprint(cmd.OutOrStdout(), sshConfig(program, f, hosts))
			return nil
		},
	}
}

// sshConfig returns the block. ssh hands the command to a shell, and %h and %p
// stand for the host and the port.
func sshConfig(program string, f *doorFlags, hosts []string) string {
	args := []string{program, "connect", "--server", f.server}
	for _, flag := range []struct {
		name, value string
		file        bool
	}{
		{"ca", f.ca, true}, {"cert", f.cert, true}, {"key", f.key, true}, {"password-file", f.passwordFile, true}, {"form", f.form, false},
		{"issuer", f.issuer, false}, {"client-id", f.clientID, false}, {"resource", f.resource, false},
	} {
		value := flag.value
		if absolute, err := filepath.Abs(value); flag.file && value != "" && err == nil {
			value = absolute
		}
		if value != "" {
			args = append(args, "--"+flag.name, value)
		}
	}
	for i, arg := range args {
		args[i] = quoteForSSH(arg)
	}
	return "Host " + strings.Join(hosts, " ") + "\n    ProxyCommand " + strings.Join(args, " ") + " --stdio %h:%p\n    ServerAliveInterval 30\n"
}

// quoteForSSH quotes for the shell where that is needed, and keeps ssh from
// replacing what looks like a token of its own.
func quoteForSSH(arg string) string {
	arg = strings.ReplaceAll(arg, "%", "%%")
	if strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:=@%") == "" {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
