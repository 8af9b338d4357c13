package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/history"
)

// historyFlags are the flags of the commands that read audit files.
type historyFlags struct {
	audit        []string
	since, until string
}

func (f *historyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.audit, "audit", nil, "an audit `file`, a pattern such as 'audit.jsonl*', a folder, or - for standard input; may be repeated; gzip and zstd are recognised")
	cmd.Flags().StringVar(&f.since, "since", "", "leave out what happened before this `time`, as in 2026-11-23, 2026-11-23T09:00:00Z or 30d (ago)")
	cmd.Flags().StringVar(&f.until, "until", "", "leave out what happened at this `time` or later")
	cmd.MarkFlagRequired("audit")
}

// open finds the files. Further names may stand behind the flags, where a shell
// puts what it makes of --audit audit.jsonl*.
func (f *historyFlags) open(more []string, stdin io.Reader) (*audit.Files, error) {
	files, err := audit.Find(append(slices.Clone(f.audit), more...))
	if err != nil {
		return nil, err
	}
	files.Stdin = stdin
	return files, nil
}

// filter reads the time span.
func (f *historyFlags) filter(now time.Time) (filter history.Filter, err error) {
	if filter.Since, err = instant(f.since, now); err != nil {
		return filter, fmt.Errorf("--since: %w", err)
	}
	if filter.Until, err = instant(f.until, now); err != nil {
		return filter, fmt.Errorf("--until: %w", err)
	}
	if !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
		return filter, fmt.Errorf("--since %s is not before --until %s", f.since, f.until)
	}
	return filter, nil
}

// instant reads a time, a day in UTC, or a duration before now.
func instant(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	var ago access.Duration
	if ago.UnmarshalText([]byte(text)) != nil {
		return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-23, 2026-11-23T09:00:00Z, or 30d for thirty days ago", text)
	}
	return now.Add(-ago.Std()), nil
}

func replayCommand(s *settings) *cobra.Command {
	var f historyFlags
	var route, user string
	var failOn []string
	cmd := &cobra.Command{
		Use:   "replay --audit FILE… --config next.yaml",
		Short: "Decide what really happened again, with another configuration",
		Long: "Decide every recorded request again, with the configuration given, and print what would be different:\n" +
			"who would lose access, who would gain it, by which rule, with examples. The route is found again from\n" +
			"the address. What a record does not tell is counted as unknown and never guessed; lines that cannot\n" +
			"be used are named. With the configuration that decided, nothing differs.",
		Example: "  doorward replay --audit '/var/log/doorward/audit.jsonl*' --since 30d --config next.yaml\n" +
			"  zcat old.gz | doorward replay --audit - --config next.yaml --fail-on allow-to-deny",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			kinds := append(history.Transitions(), "unknown", "inconsistent", "unreadable")
			for _, kind := range failOn {
				if !slices.Contains(kinds, kind) {
					return fmt.Errorf("--fail-on %q is none of %s", kind, strings.Join(kinds, ", "))
				}
			}
			next, err := config.Load(s.config)
			if err != nil {
				return err
			}
			filter, err := f.filter(time.Now())
			if err != nil {
				return err
			}
			filter.Route, filter.User = route, user
			files, err := f.open(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			report, err := withProgress(ctx, files, cmd.ErrOrStderr(), func() (*history.Report, error) { return history.Replay(ctx, files, next, filter) })
			if err != nil {
				return &exitError{code: exitNo, err: err}
			}
			report.Config = s.config // as it was named
			if err := s.print(cmd, report, report.WriteText); err != nil {
				return err
			}
			return failing(report, failOn)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&route, "route", "", "only requests of this `route`, before or after")
	cmd.Flags().StringVar(&user, "user", "", "only requests of this `user`, PROVIDER:SUB or an e-mail address")
	cmd.Flags().StringSliceVar(&failOn, "fail-on", nil, "exit with 1 if there are any of these: `kind` is allow-to-deny, allow-to-challenge, … unknown, inconsistent, unreadable")
	return cmd
}

// failing turns what --fail-on names into exit code 1.
func failing(report *history.Report, kinds []string) error {
	for _, kind := range kinds {
		n := report.Count(kind)
		switch kind {
		case "unknown":
			n = report.Unknowns()
		case "inconsistent":
			n = report.Inconsistencies()
		case "unreadable":
			n = report.Log.Unusable()
		}
		if n > 0 {
			return &exitError{code: exitNo, err: fmt.Errorf("failed on %s: %d", kind, n)}
		}
	}
	return nil
}
