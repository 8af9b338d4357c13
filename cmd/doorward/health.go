package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/admin"
)

// healthTimeout is how long /readyz may take, which waits for nothing.
const healthTimeout = 3 * time.Second

// health is what `doorward health` prints.
type health struct {
	Status  string `json:"status"`
	Failing []struct {
		Check string `json:"check"`
		Error string `json:"error"`
	} `json:"failing,omitempty"`
}

func healthCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running doorward whether it is ready",
		Long: "Ask the admin listener of a running doorward whether visitors should be sent to it (/readyz), as a\n" +
			"container's health check does. It needs no token, and a mistake in the configuration file does not\n" +
			"matter while the running doorward goes on with an older one. The exit code is 0 if it is ready, 1 if\n" +
			"it is not or does not answer.",
		Example: "  doorward health --config /etc/doorward/doorward.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			listen := admin.DefaultListen
			if f.url == "" {
				var err error
				if listen, err = config.AdminListen(s.config); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%v; asking at %s\n", err, admin.DefaultListen)
					listen = admin.DefaultListen
				}
			}
			base, err := adminURL(listen, f.url)
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			answer, err := askReady(base)
			if err != nil {
				return &exitError{code: exitNo, err: err}
			}
			if err := s.print(cmd, answer, func(out io.Writer) error {
				fmt.Fprintln(out, printable(answer.Status))
				for _, one := range answer.Failing {
					fmt.Fprintf(out, "%s: %s\n", printable(one.Check), printable(one.Error))
				}
				return nil
			}); err != nil {
				return err
			}
			if answer.Status != "ready" {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	f.register(cmd)
	return cmd
}

// askReady returns what /readyz says, with either status.
func askReady(base string) (*health, error) {
	client := &http.Client{Timeout: healthTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(base + "/readyz")
	if err != nil {
		return nil, fmt.Errorf("no doorward answers: %w", err)
	}
	defer res.Body.Close()
	var answer health
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&answer); err != nil ||
		(res.StatusCode == http.StatusOK) != (answer.Status == "ready") {
		return nil, fmt.Errorf("%s answered %d and something else than doorward does; is it the admin listener?", base, res.StatusCode)
	}
	return &answer, nil
}
