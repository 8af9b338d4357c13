package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
)

func checkCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and list every mistake",
		Long: "Check the configuration and every file it names. Each mistake is printed with file, line, column\n" +
			"and the cure. Public rules and exceptions are listed, since they are what one should know about.\n" +
			"Exits 0 if doorward could serve with it and 2 if not.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			cfg, err := config.Load(s.config)
			if err != nil {
				return refuse(out, s, err)
			}
			tests, err := cfg.AllTests()
			if err != nil {
				return refuse(out, s, err)
			}
			notes := cfg.Policy.Notes()
			if s.json() {
				return json.NewEncoder(out).Encode(map[string]any{
					"ok": true, "version": cfg.Version, "routes": len(cfg.Routes), "tests": len(tests), "notes": notes,
				})
			}
			for _, note := range notes {
				fmt.Fprintf(out, "note: %s: %s\n", note.Path, note.Text)
			}
			fmt.Fprintf(out, "%s is fine: %d routes, %d providers, %d tests, version %s\n", s.config, len(cfg.Routes), len(cfg.Providers), len(tests), cfg.Version)
			return nil
		},
	}
}

// exitCodeOf tells a configuration that is wrong from a run that failed.
func exitCodeOf(err error) int {
	var problems config.Problems
	if errors.As(err, &problems) {
		return exitUsage
	}
	return exitNo
}
