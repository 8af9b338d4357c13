package main

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/serve"
)

// program returns the path of this program as it was started. What is there later
// may be another version.
func program() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil { // it was started under a name that is not its own
		path, _ = os.Executable()
	}
	return path
}

func serveCommand(s *settings) *cobra.Command {
	var shadow string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: "Run the proxy until SIGTERM or Ctrl-C. SIGHUP, and any change of the configuration or a file it\n" +
			"names, loads the configuration again; one with mistakes is reported and the running one stays.\n" +
			"SIGUSR2 starts the program that is at its place now, which takes over without a failed request.\n" +
			"A second configuration may decide on the same requests without being enforced (--shadow): where\n" +
			"it differs is recorded in the audit log and counted.",
		Example: "  doorward serve --config doorward.yaml --shadow next.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			upgrade := make(chan os.Signal, 1)
			if len(upgradeSignals) > 0 { // without any, Notify would mean all
				signal.Notify(upgrade, upgradeSignals...)
				defer signal.Stop(upgrade)
			}
			err := serve.Run(ctx, serve.Options{
				Config:  s.config,
				Version: buildVersion(),
				Shadow:  shadow,
				Reload:  reload,
				Upgrade: upgrade,
				Program: program(),
				Args:    os.Args[1:],
			})
			if err != nil {
				return &exitError{code: exitCodeOf(err), err: err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&shadow, "shadow", "", "a candidate configuration `file` to decide with and not to enforce (default: the key shadow)")
	return cmd
}
