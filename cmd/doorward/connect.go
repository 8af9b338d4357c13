package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/clilogin"
	"github.com/doorward/doorward/internal/tunnel"
)

// Exit codes of connect, besides those of every command. Scripts tell by them
// what to do next.
const (
	exitLogin  = 3 // a login is needed, or a stronger one
	exitDevice = 4 // the device does not pass
	exitDoor   = 5 // the door cannot be reached, or cannot prove who it is
	exitTarget = 6 // what is behind the door cannot be reached
)

type connectFlags struct {
	doorFlags
	listen, socks, httpProxy string
	stdio, all, direct       bool
}

func connectCommand(*settings) *cobra.Command {
	var f connectFlags
	cmd := &cobra.Command{
		Use:   "connect [HOST:PORT]",
		Short: "Reach ssh, databases and other services through the door",
		Long: "Open tunnels through a door, for programs on this machine: with --listen at an address of this\n" +
			"machine, with --stdio as a ProxyCommand of ssh, with --socks or --http-proxy for programs that know\n" +
			"proxies, with --all everything that you are allowed to open. It uses the token of doorward login and\n" +
			"logs in by itself where --issuer and --client-id are given.\n\n" +
			"Exit codes: 0 the connection came to its end, 1 refused by the policy or cut, 2 the command line is\n" +
			"wrong, 3 a login is needed, 4 the device does not pass, 5 the door cannot be reached, 6 what is behind\n" +
			"the door cannot be reached.",
		Example: "  doorward connect --server https://door.corp.example.com db.corp.example.com:5432 --listen 127.0.0.1:5432\n" +
			"  ssh -o ProxyCommand='doorward connect --server https://door.corp.example.com --stdio %h:%p' build.corp.example.com\n" +
			"  doorward connect --server https://door.corp.example.com --all",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return connectExit(f.run(ctx, args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	f.doorFlags.add(cmd.PersistentFlags())
	cmd.Flags().BoolVar(&f.stdio, "stdio", false, "carry the standard input and output")
	cmd.Flags().StringVar(&f.listen, "listen", "", "listen at this `address` of this machine (default: a free port of 127.0.0.1)")
	cmd.Flags().StringVar(&f.socks, "socks", "", "be a SOCKS 5 proxy at this `address`")
	cmd.Flags().StringVar(&f.httpProxy, "http-proxy", "", "be an HTTP proxy (CONNECT) at this `address`")
	cmd.Flags().BoolVar(&f.all, "all", false, "open every tunnel that you are allowed to open")
	cmd.Flags().BoolVar(&f.direct, "direct", false, "with --socks and --http-proxy: connect past the door to what no tunnel is for")
	cmd.MarkFlagsMutuallyExclusive("stdio", "listen", "all")
	cmd.MarkFlagsMutuallyExclusive("stdio", "socks")
	cmd.MarkFlagsMutuallyExclusive("stdio", "http-proxy")
	cmd.AddCommand(sshConfigCommand(&f.doorFlags))
	return cmd
}

func (f *connectFlags) run(ctx context.Context, args []string, in io.Reader, out, tell io.Writer) error {
	target := ""
	if len(args) > 0 {
		var err error
		if target, err = tunnel.Target(args[0]); err != nil {
			return &exitError{code: exitUsage, err: err}
		}
	}
	switch proxies := f.socks != "" || f.httpProxy != ""; {
	case target == "" && !f.all && !proxies:
		return &exitError{code: exitUsage, err: errors.New("say where to connect to, as HOST:PORT, or use --all, --socks or --http-proxy")}
	case target != "" && (f.all || proxies):
		return &exitError{code: exitUsage, err: errors.New("--all, --socks and --http-proxy take no HOST:PORT")}
	case f.direct && !proxies:
		return &exitError{code: exitUsage, err: errors.New("--direct belongs to --socks or --http-proxy")}
	}
	door, err := f.open(tell)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	say := newSayer(tell)
	if f.stdio {
		return carryStdio(ctx, &tunnel.Local{Door: door, Target: target, Tell: say.line}, in, out)
	}
	board := &board{door: door, say: say, server: f.server}
	return board.serve(ctx, f, target)
}

// carryStdio carries the standard input and output. Whatever ends a tunnel that
// was open has been told by then.
func carryStdio(ctx context.Context, local *tunnel.Local, in io.Reader, out io.Writer) error {
	stdout, ok := out.(io.WriteCloser)
	if !ok {
		return errors.New("the standard output cannot be closed")
	}
	opened, err := local.Stdio(ctx, in, stdout)
	if opened && err != nil {
		return &exitError{code: connectCode(err)}
	}
	return err
}

// connectExit gives an error its text and its exit code.
func connectExit(err error) error {
	if err == nil {
		return nil
	}
	if done, ok := errors.AsType[*exitError](err); ok {
		return done
	}
	text := tunnel.Explain("doorward connect", err)
	return &exitError{code: connectCode(err), err: errors.New(text)}
}

func connectCode(err error) int {
	if errors.Is(err, clilogin.ErrNotLoggedIn) {
		return exitLogin
	}
	if _, away := errors.AsType[*tunnel.Unreachable](err); away {
		return exitDoor
	}
	why := tunnel.ReasonOf(err)
	switch why {
	case access.TokenInvalid, access.TokenExpired, access.TokenRevoked, access.TokenAudience, access.TokenNotAccessToken, access.TokenBindingMismatch:
		return exitLogin
	case access.UpstreamUnreachable, access.UpstreamTimeout, access.UpstreamBroken, access.TargetProhibited:
		return exitTarget
	}
	switch {
	case why.CuredByLogin():
		return exitLogin
	case why.AboutDevice():
		return exitDevice
	}
	return exitNo
}

// listenLocally listens at an address of this machine only: whoever reaches it
// connects as the person who runs the command.
func listenLocally(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%q is no address to listen on, such as 127.0.0.1:2222", address)}
	}
	if !access.Loopback(host) {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%q can be reached by other machines, which would connect as you: write 127.0.0.1", address)}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%w; choose another address", err)}
	}
	return l, nil
}
