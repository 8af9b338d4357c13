// Command doorward is an identity-aware access proxy: it verifies who asks, on
// which device and how surely, decides by a least-privilege policy, and only
// then forwards.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	_ "time/tzdata" // policy windows name time zones; the image has no zone files

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	exitOK    = 0
	exitNo    = 1 // the answer is no: a denied request, a failed run
	exitUsage = 2 // the command line or the configuration is wrong
)

// version is set by the linker for releases.
var version = ""

// settings are the flags every command shares.
type settings struct {
	config string
	output string
}

func (s *settings) json() bool { return s.output == "json" }

// exitError carries an exit code to main. A nil err means that everything worth
// saying was printed already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	if err := root().Execute(); err != nil {
		code := exitUsage
		var exit *exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
		os.Exit(code)
	}
}

func root() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "doorward",
		Short: "An identity-aware access proxy",
		Long: "Doorward stands in front of internal applications. Every request is verified (who, on which\n" +
			"device, how surely), decided by a policy that denies by default, and only then forwarded.",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if s.output != "text" && s.output != "json" {
				return fmt.Errorf("--output %q is neither text nor json", s.output)
			}
			return nil
		},
	}
	cmd.PersistentFlags().StringVarP(&s.config, "config", "c", "doorward.yaml", "configuration `file`")
	cmd.PersistentFlags().StringVarP(&s.output, "output", "o", "text", "output `format`: text or json")
	cmd.AddCommand(
		initCommand(&s),
		serveCommand(&s),
		checkCommand(&s),
		diffCommand(&s),
		testCommand(&s),
		explainCommand(&s),
		replayCommand(&s),
		suggestCommand(&s),
		importCommand(&s),
		whoCanCommand(&s),
		loginCommand(&s), connectCommand(&s),
		healthCommand(&s),
		topCommand(&s), sessionsCommand(&s), revokeCommand(&s), revocationsCommand(&s), devicesCommand(&s),
		verifyLogCommand(&s), auditCommand(&s),
		manCommand(), versionCommand(&s),
	)
	showUsage(cmd)
	return cmd
}

// showUsage lets every command that counts its arguments say what they are.
func showUsage(cmd *cobra.Command) {
	if count := cmd.Args; count != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := count(cmd, args); err != nil {
				return fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())
			}
			return nil
		}
	}
	for _, below := range cmd.Commands() {
		showUsage(below)
	}
}

// buildVersion prefers the linker's word and falls back to the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
