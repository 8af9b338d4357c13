package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/history"
)

func whoCanCommand(s *settings) *cobra.Command {
	var f historyFlags
	admins := adminFlags{settings: s}
	var target, method, at string
	var live bool
	cmd := &cobra.Command{
		Use:   "who-can --url URL [--method METHOD] --audit FILE…",
		Short: "Tell who could open an address, and who nearly could",
		Long: "Tell who of those who were seen in the audit log could open an address, by which rule, and who nearly\n" +
			"could and what is missing. Everybody is taken as they came last: with the groups they had, on each\n" +
			"device they used, with a login as fresh as it was. Exits 1 if nobody could.",
		Example: "  doorward who-can --url https://billing.corp.example.com/export --method POST --audit '/var/log/doorward/audit.jsonl*' --since 30d",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			cfg, err := config.Load(s.config)
			if err != nil {
				return err
			}
			u, err := url.Parse(target)
			if err != nil || u.Scheme == "" || u.Host == "" {
				return fmt.Errorf("--url %q is no absolute URL; write https://app.example.com/path", target)
			}
			now := time.Now()
			when, err := instant(at, now)
			if err != nil {
				return fmt.Errorf("--at: %w", err)
			}
			if when.IsZero() {
				when = now
			}
			filter, err := f.filter(now)
			if err != nil {
				return err
			}
			files, err := f.open(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			found, err := withProgress(ctx, files, cmd.ErrOrStderr(), func() (*history.Access, error) {
				return history.WhoCan(ctx, files, cfg, method, u, when, filter)
			})
			if err != nil {
				return fmt.Errorf("--url %s: %w", target, err)
			}
			if live {
				if err := admins.loggedIn(ctx, cmd.ErrOrStderr(), found); err != nil {
					return err
				}
			}
			if err := s.print(cmd, found, found.WriteText); err != nil {
				return err
			}
			if len(found.Can) == 0 && found.Anybody == "" {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&target, "url", "", "the `URL`")
	cmd.Flags().StringVar(&method, "method", http.MethodGet, "the HTTP `method`")
	cmd.Flags().StringVar(&at, "at", "", "when, as in 2026-11-23T09:00:00Z (default: now)")
	cmd.Flags().BoolVar(&live, "live", false, "also ask the running doorward who is logged in")
	admins.register(cmd)
	cmd.MarkFlagRequired("url")
	return cmd
}

// loggedIn asks the admin listener for the sessions.
func (f *adminFlags) loggedIn(ctx context.Context, tell io.Writer, found *history.Access) error {
	client, err := f.connect()
	if err != nil {
		return err
	}
	var list admin.SessionList
	if err := client.get(ctx, "/api/v1/sessions", &list); err != nil {
		return err
	}
	if list.More {
		fmt.Fprintln(tell, "There are more sessions than the admin listener lists; who is logged in is not complete.")
	}
	found.LoggedIn(list.Sessions)
	return nil
}
