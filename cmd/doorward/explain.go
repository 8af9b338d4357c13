package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

type explainFlags struct {
	url, method, as, at string
	color               bool
}

func explainCommand(s *settings) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --route-url URL [--method METHOD] [--as FILE]",
		Short: "Explain what would be decided, rule by rule",
		Long: "Explain what would be decided about a request, rule by rule: what matched, what did not, what was\n" +
			"wanted and what was found, and the smallest change that would allow. It is the same walk that\n" +
			"decides live requests, on the same inventories. Exits 0 for allow and 1 for everything else.",
		Example: "  doorward explain --route-url https://wiki.corp.example.com/ --as bob.yaml\n\n" +
			"  # bob.yaml\n  provider: corp\n  sub: 8f1c2d\n  groups: [sales]\n  claims: {deviceid: laptop-7}\n  acr: mfa\n  login_age: 5m",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(cmd.OutOrStdout(), s, f)
		},
	}
	cmd.Flags().StringVar(&f.url, "route-url", "", "the `URL` someone asks for")
	cmd.Flags().StringVar(&f.method, "method", http.MethodGet, "the HTTP `method`")
	cmd.Flags().StringVar(&f.as, "as", "", "a YAML `file` that says who asks (default: nobody)")
	cmd.Flags().StringVar(&f.at, "at", "", "the `time` of the request, as in 2026-11-23T09:00:00Z (default: now)")
	cmd.Flags().BoolVar(&f.color, "color", isTerminal(os.Stdout), "use colours")
	cmd.MarkFlagRequired("route-url")
	return cmd
}

func explain(out io.Writer, s *settings, f explainFlags) error {
	cfg, err := config.Load(s.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	req, err := f.request(cfg)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	decision, tree := cfg.Policy.Explain(req)
	if s.json() {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			Request  *access.Request `json:"request"`
			Decision access.Decision `json:"decision"`
			Tree     *authz.Tree     `json:"tree"`
		}{req, decision, tree})
	} else {
		err = tree.WriteText(out, f.color)
	}
	if err == nil && decision.Outcome != access.Allow {
		return &exitError{code: exitNo}
	}
	return err
}

// request gathers the facts as the stations of a live request would.
func (f explainFlags) request(cfg *config.Config) (*access.Request, error) {
	at := time.Now()
	if f.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, fmt.Errorf("--at: %w", err)
		}
	}
	target, err := url.Parse(f.url)
	if err != nil || target.Scheme == "" || target.Host == "" {
		return nil, fmt.Errorf("--route-url %q is no absolute URL; write https://app.example.com/path", f.url)
	}
	req, err := proxy.Imagine(cfg.Table, f.method, target)
	if err != nil {
		return nil, fmt.Errorf("--route-url: %w", err)
	}
	req.Time = at
	who := new(access.Someone)
	if f.as != "" {
		if who, err = cfg.ReadSomeone(f.as); err != nil {
			return nil, err
		}
	}
	if err := cfg.As(req, who); err != nil {
		return nil, fmt.Errorf("%s: %w", f.as, err)
	}
	inspector, err := devicecheck.New(devicecheck.Options{Config: cfg.Devices})
	if err != nil {
		return nil, err
	}
	return req, inspector.Inspect(&http.Request{Method: f.method, URL: target, Header: http.Header{}}, req)
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
