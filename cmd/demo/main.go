// Command demo runs the whole of Doorward on one laptop, with nothing to
// install: a sample identity provider, three sample applications, an inventory
// of devices, and Doorward in front of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	_ "time/tzdata"

	"github.com/doorward/doorward/internal/serve"
)

// estate is where everything of one demo run lives.
type estate struct {
	addr, idpAddr, adminAddr string
	state                    string
	wiki, echo, billing      string // URLs of the applications themselves
	help                     string
	verbose                  bool
}

func main() {
	var e estate
	flag.StringVar(&e.addr, "addr", "127.0.0.1:8080", "`address` of doorward")
	flag.StringVar(&e.idpAddr, "idp-addr", "127.0.0.1:8081", "`address` of the sample identity provider")
	flag.StringVar(&e.adminAddr, "admin-addr", "127.0.0.1:9901", "`address` of the admin listener")
	flag.StringVar(&e.state, "state", "", "`folder` that keeps sessions, configuration and audit log for the next run (default: a temporary one)")
	flag.BoolVar(&e.verbose, "v", false, "log every request")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo takes flags only; what is %q?\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, e); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println("\nThe demo has ended.")
}

// run starts everything and returns when ctx ends or a part fails.
func run(ctx context.Context, e estate) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	if e.state == "" {
		dir, err := os.MkdirTemp("", "doorward-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		e.state = dir
	} else if err := os.MkdirAll(e.state, 0o700); err != nil {
		return fmt.Errorf("the state folder: %w", err)
	}
	e.state, _ = filepath.Abs(e.state)

	stopProvider, err := startProvider(&e)
	if err != nil {
		return err
	}
	defer stopProvider()
	if err := startApps(ctx, &e); err != nil {
		return err
	}
	if err := keepDevicesFresh(ctx, e); err != nil {
		return err
	}
	path, err := writeConfig(e)
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return serve.Run(ctx, serve.Options{
		Config:  path,
		Version: "demo",
		Reload:  hangup,
		Ready:   func() { fmt.Print(e.welcome(path)) },
	})
}

func startApps(ctx context.Context, e *estate) error {
	links := [][2]string{
		{"Wiki", e.url("wiki")}, {"Echo", e.url("echo")}, {"Billing", e.url("billing")},
		{"Log out", "/.doorward/logout"},
	}
	var errs []error
	start := func(handler http.Handler) string {
		url, err := serveApp(ctx, handler)
		errs = append(errs, err)
		return url
	}
	e.wiki, e.echo = start(wiki(links)), start(http.HandlerFunc(echo))
	e.billing, e.help = start(billing(links)), start(help())
	return errors.Join(errs...)
}

// url returns the public address of one of the demo's hosts.
func (e estate) url(name string) string {
	_, port, _ := net.SplitHostPort(e.addr)
	if port == "80" {
		return "http://" + name + ".localhost"
	}
	return "http://" + name + ".localhost:" + port
}

// welcome is what the person at the keyboard can do next.
func (e estate) welcome(configPath string) string {
	return fmt.Sprintf(`
Doorward is ready. Four people can log in, each with the password "demo":

  alice   eng and finance, healthy laptop, has a second factor
  bob     sales, no device
  carol   finance, a managed laptop that is not compliant
  dave    eng, a laptop that has not reported for 30 days

Three applications to try:

  %-34s staff, on a managed device
  %-34s everyone; shows what an application is told
  %-34s finance, on a healthy device, with a second factor

  Who am I?       %s
  Log out         %s
  As a program    curl -i -H 'Sec-Fetch-Mode: cors' %s/
  Admin           %s/   (as alice; with the token of %s at http://%s/)
  Sessions        go run ./cmd/doorward sessions list --config %s

  Configuration   %s   (edit it: changes are picked up while serving)
  Audit log       %s

Stop with Ctrl-C.
`, e.url("wiki"), e.url("echo"), e.url("billing"), e.url("echo")+"/.doorward/me", e.url("echo")+"/.doorward/logout",
		e.url("echo"), e.url("admin"), filepath.Join(e.state, "admin-token"), e.adminAddr, configPath, configPath, filepath.Join(e.state, "audit.jsonl"))
}
