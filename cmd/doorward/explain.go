package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/history"
	"github.com/doorward/doorward/proxy"
)

type explainFlags struct {
	url, method, as, device, at string
	id                          string
	audit                       []string
	color                       bool
}

func explainCommand(s *settings) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain {--url URL [--method METHOD] [--as FILE] [--device FILE|NAME] [--at TIME] | --id ID [--audit FILE]…}",
		Short: "Explain what would be decided, or what was, rule by rule",
		Long: "Explain what would be decided about a request, rule by rule: what matched, what did not, what was\n" +
			"wanted and what was found, and the smallest change that would allow. It is the same walk that\n" +
			"decides live requests, on the same inventories. Exits 0 for allow and 1 for everything else.\n\n" +
			"With --id it explains a decision of the audit log: from its record, with the policy of the\n" +
			"configuration, and says whether another policy decided then and whether the verdict would differ now.",
		Example: "  doorward explain --url https://wiki.corp.example.com/ --as bob.yaml --device managed\n\n" +
			"  # bob.yaml\n  provider: corp\n  sub: 8f1c2d\n  groups: [sales]\n  claims: {deviceid: laptop-7}\n  acr: mfa\n  login_age: 5m\n\n" +
			"  doorward explain --id 5c9f12ec09078937b44a8aed4e80b011 --audit '/var/log/doorward/audit.jsonl*'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, s, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.url, "url", "", "the `URL` someone asks for")
	flags.StringVar(&f.url, "route-url", "", "the same as --url")
	flags.MarkHidden("route-url")
	flags.StringVar(&f.method, "method", http.MethodGet, "the HTTP `method`")
	flags.StringVar(&f.as, "as", "", "a YAML `file` that says who asks (default: nobody)")
	flags.StringVar(&f.device, "device", "", "a YAML `file` that describes a device, the name of a device profile, or none (default: as the inventories know it)")
	flags.StringVar(&f.at, "at", "", "the `time` of the request, as in 2026-11-23T09:00:00Z (default: now)")
	flags.StringVar(&f.id, "id", "", "the `id` of a decision in the audit log, as a refusal page shows it")
	flags.StringArrayVar(&f.audit, "audit", nil, "an audit `file`, a pattern or a folder to look for the id in; may be repeated (default: the files of the configuration, rotated ones too)")
	flags.BoolVar(&f.color, "color", isTerminal(os.Stdout), "use colours")
	cmd.MarkFlagsOneRequired("url", "route-url", "id")
	for _, imagined := range []string{"url", "route-url", "as", "device", "at"} {
		cmd.MarkFlagsMutuallyExclusive("id", imagined)
	}
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, s *settings, more []string) error {
	if f.id == "" && (len(f.audit) > 0 || len(more) > 0) {
		return errors.New("--audit is for --id: the facts of an imagined request are not in the log")
	}
	cfg, err := config.Load(s.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if f.id != "" {
		return f.past(cmd, s, cfg, append(f.audit, more...))
	}
	req, err := f.request(cfg)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	decision, tree := cfg.Policy.Explain(req)
	err = s.print(cmd, struct {
		Request  *access.Request `json:"request"`
		Decision access.Decision `json:"decision"`
		Tree     *authz.Tree     `json:"tree"`
	}{req, decision, tree}, func(out io.Writer) error { return tree.WriteText(out, f.color) })
	return exitFor(decision, err)
}

// past explains a decision of the audit log.
func (f *explainFlags) past(cmd *cobra.Command, s *settings, cfg *config.Config, names []string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(names) == 0 {
		if names = auditFiles(cfg); len(names) == 0 {
			return &exitError{code: exitUsage, err: fmt.Errorf("%s writes its audit log to no file; name one with --audit", s.config)}
		}
	}
	files, err := audit.Find(names)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	files.Stdin = cmd.InOrStdin()
	record, err := withProgress(ctx, files, cmd.ErrOrStderr(), func() (*history.Record, error) { return history.Find(ctx, files, f.id) })
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if record.Decision == nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("%s holds no verdict", f.id)}
	}
	past := cfg.Policy.Past(record.Decision, cfg.Table.Rematch(record.Request))
	past.Lacks = record.Lacks(cfg)
	err = s.print(cmd, past, func(out io.Writer) error { return past.WriteText(out, f.color) })
	return exitFor(past.Tree.Decision, err)
}

// auditFiles are the files that the configuration writes, with the rotated ones
// beside them, oldest first as far as their names tell.
func auditFiles(cfg *config.Config) (names []string) {
	for _, sink := range cfg.Audit.To {
		if path := sink.File.Path; path != "" {
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(cfg.Path), path)
			}
			names = append(names, path+"*")
		}
	}
	return names
}

// exitFor makes a refusal an exit code.
func exitFor(d access.Decision, err error) error {
	if err == nil && d.Outcome != access.Allow {
		return &exitError{code: exitNo}
	}
	return err
}

// request gathers the facts as the stations of a live request would.
func (f *explainFlags) request(cfg *config.Config) (*access.Request, error) {
	at := time.Now()
	if f.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, fmt.Errorf("--at %q is no time; write 2026-11-23T09:00:00+01:00", f.at)
		}
	}
	target, err := url.Parse(f.url)
	if err != nil || target.Scheme == "" || target.Host == "" {
		return nil, fmt.Errorf("--url %q is no absolute URL; write https://app.example.com/path", f.url)
	}
	req, err := proxy.Imagine(cfg.Table, f.method, target)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
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
	if f.device != "" {
		return req, f.on(cfg, req)
	}
	inspector, err := devicecheck.New(devicecheck.Options{Config: cfg.Devices})
	if err != nil {
		return nil, err
	}
	return req, inspector.Inspect(&http.Request{Method: f.method, URL: target, Header: http.Header{}}, req)
}

// on puts the device that --device describes into the request.
func (f *explainFlags) on(cfg *config.Config, req *access.Request) error {
	if dev, ok := cfg.Policy.Device(f.device, req.Time); ok {
		req.Device = dev
		return nil
	}
	dev, err := cfg.ReadDevice(f.device)
	if _, missing := os.Stat(f.device); errors.Is(missing, os.ErrNotExist) {
		names := append(cfg.Policy.DeviceNames(), "none", "unknown", "silent")
		return fmt.Errorf("--device: %q is neither a file nor one of %s; to explain a device of an inventory, let the file of --as claim it",
			f.device, strings.Join(names, ", "))
	}
	if err != nil {
		return fmt.Errorf("--device: %w", err)
	}
	return cfg.On(req, dev)
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
