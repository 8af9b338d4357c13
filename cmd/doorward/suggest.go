package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/history"
)

func suggestCommand(s *settings) *cobra.Command {
	var f historyFlags
	var window, patch string
	var caution history.Caution
	cmd := &cobra.Command{
		Use:   "suggest --audit FILE… [--window 90d]",
		Short: "Propose tighter rules from what people really did",
		Long: "Propose tighter rules from the audit log: groups, rules and routes that nobody used, groups that only\n" +
			"read, parts of applications that nobody opens, groups in the place of any_user, report-only deny rules\n" +
			"that refuse nobody. Nothing is ever loosened. The proposals come as a patch of the configuration, with\n" +
			"the proof that it refuses nothing that anybody did, and the names of those who would lose a right they\n" +
			"did not use. What people have to decide, or what too little is known of, is listed and not patched.",
		Example: "  doorward suggest --audit '/var/log/doorward/audit.jsonl*' --config doorward.yaml --patch tighter.patch\n" +
			"  git apply tighter.patch",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			cfg, err := config.Load(s.config)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(s.config)
			if err != nil {
				return err
			}
			filter, err := f.window(window, time.Now())
			if err != nil {
				return err
			}
			files, err := f.open(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			files.Size *= 2 // the log is read again for the proof
			found, err := withProgress(ctx, files, cmd.ErrOrStderr(), func() (*history.Suggestions, error) {
				return history.Suggest(ctx, files, cfg, text, s.config, filter, caution)
			})
			if err != nil {
				return &exitError{code: exitNo, err: err}
			}
			if patch != "" && found.Patch != "" {
				if err := os.WriteFile(patch, []byte(found.Patch), 0o644); err != nil {
					return &exitError{code: exitNo, err: err}
				}
			}
			return s.print(cmd, found, found.WriteText)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&window, "window", "90d", "how far back to look from --until, or from now")
	cmd.MarkFlagsMutuallyExclusive("since", "window")
	cmd.Flags().StringVar(&patch, "patch", "", "also write the patch to this `file`")
	cmd.Flags().IntVar(&caution.Requests, "min-requests", 20, "propose nothing for a route or rule with fewer `requests`")
	cmd.Flags().IntVar(&caution.Days, "min-days", 30, "patch nothing if the log covers fewer `days`")
	cmd.Flags().BoolVar(&caution.AnySeason, "any-season", false, "patch although the log does not cover the end of a quarter")
	return cmd
}

// window is the time span for a length that ends at --until, or now.
func (f *historyFlags) window(length string, now time.Time) (history.Filter, error) {
	filter, err := f.filter(now)
	if err != nil || !filter.Since.IsZero() {
		return filter, err
	}
	var d access.Duration
	if err := d.UnmarshalText([]byte(length)); err != nil {
		return filter, fmt.Errorf("--window: %w", err)
	}
	if d == 0 {
		return filter, errors.New("--window is zero")
	}
	if filter.Until.IsZero() {
		filter.Until = now
	}
	filter.Since = filter.Until.Add(-d.Std())
	return filter, nil
}
