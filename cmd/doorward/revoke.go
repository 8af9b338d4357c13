package main

import (
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

func revokeCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	var body admin.RevokeRequest
	var session, why string
	cmd := &cobra.Command{
		Use:   "revoke (--user PROVIDER:SUB | --device ID | --session ID | --all) --why TEXT",
		Short: "End access at once, on every replica",
		Long: "End access at once, on every replica: sessions, access tokens, and whatever is open. What is issued\n" +
			"afterwards counts: whoever can still log in can come back, so disable the account first where that\n" +
			"is meant. --device ends what is used from a device, --all ends everything.",
		Example: "  doorward revoke --user corp:8f1c2d --why \"left the company\"\n" +
			"  doorward revoke --device laptop-7 --why \"reported stolen, ticket 4711\"",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			if session != "" {
				return f.endSession(cmd, client, session, why)
			}
			body.Deed = deed(why)
			var done admin.Revoked
			if err := client.post(cmd.Context(), "/api/v1/revocations", body, &done); err != nil {
				return err
			}
			return s.print(cmd, done, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s, issued before %s, is refused from now on; %d sessions have ended\n",
					printable(subjectOf(&done.Revocation)), moment(done.Revocation.At), done.Ended)
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&body.User, "user", "", "whatever was issued to this `person or machine`, as PROVIDER:SUB")
	cmd.Flags().StringVar(&body.Device, "device", "", "whatever is used from this device, by its `id` in the inventories")
	cmd.Flags().StringVar(&session, "session", "", "one session, by its `id`")
	cmd.Flags().BoolVar(&body.All, "all", false, "everything of everybody")
	cmd.MarkFlagsOneRequired("user", "device", "session", "all")
	cmd.MarkFlagsMutuallyExclusive("user", "device", "session", "all")
	whyFlag(cmd, &why)
	return cmd
}

func revocationsCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	cmd := &cobra.Command{
		Use:   "revocations",
		Short: "See what is revoked, and lift it",
		Long: "See what is revoked and for how long that is remembered, and lift a revocation: what was issued before\n" +
			"it, and has not ended by itself, counts again. Sessions that it ended stay ended.",
	}
	f.register(cmd)
	var why string
	lift := &cobra.Command{
		Use:   "lift REVOCATION --why TEXT",
		Short: "Lift a revocation",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			var done admin.Lifted
			if err := client.post(cmd.Context(), "/api/v1/revocations/"+url.PathEscape(args[0])+"/lift", deed(why), &done); err != nil {
				return err
			}
			return s.print(cmd, done, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "revocation %s is lifted\n", printable(done.Revocation))
				return err
			})
		},
	}
	whyFlag(lift, &why)
	cmd.AddCommand(lift, &cobra.Command{
		Use:   "list",
		Short: "List what is revoked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			var list admin.RevocationList
			if err := client.get(cmd.Context(), "/api/v1/revocations", &list); err != nil {
				return err
			}
			return s.print(cmd, list, func(out io.Writer) error {
				var rows [][]string
				for _, r := range list.Revocations {
					rows = append(rows, []string{r.ID, subjectOf(&r), moment(r.At), r.By, r.Why, moment(r.Until)})
				}
				return table(out, []string{"REVOCATION", "OF", "ISSUED BEFORE", "BY", "WHY", "REMEMBERED UNTIL"}, rows)
			})
		},
	})
	return cmd
}

// subjectOf says what a revocation is about.
func subjectOf(r *access.Revocation) string {
	switch {
	case r.All:
		return "everything"
	case r.Device != "" && r.Issuer != "":
		return "device " + r.Device + " for people of " + r.Issuer
	case r.Device != "":
		return "device " + r.Device
	case r.User != "":
		return r.User
	}
	return r.Issuer + " " + r.Subject
}
