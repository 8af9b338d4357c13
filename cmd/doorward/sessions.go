package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

func sessionsCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "See who is logged in, and end sessions",
		Long: "See who is logged in at a running doorward and its replicas, and end sessions. It asks the admin\n" +
			"listener; address and token are those of the configuration.",
	}
	f.register(cmd)
	cmd.AddCommand(f.listSessions(), f.showSession(), f.revokeSession())
	return cmd
}

func (f *adminFlags) listSessions() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "list [--user PROVIDER:SUB]",
		Short: "List sessions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			var list admin.SessionList
			if err := client.get(cmd.Context(), "/api/v1/sessions?"+url.Values{"user": {user}}.Encode(), &list); err != nil {
				return err
			}
			return f.settings.print(cmd, list, func(out io.Writer) error {
				var rows [][]string
				for _, one := range list.Sessions {
					rows = append(rows, []string{one.ID, one.User, nameOf(&one), moment(one.Created), moment(one.Used), moment(one.Expires), strconv.Itoa(one.Open), strings.Join(one.Origins, " ")})
				}
				err := table(out, []string{"SESSION", "USER", "NAME", "SINCE", "LAST USED", "EXPIRES", "OPEN", "ORIGINS"}, rows)
				if list.More {
					fmt.Fprintln(out, "There are more; narrow the list with --user.")
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only sessions of this `person`, as PROVIDER:SUB")
	return cmd
}

func (f *adminFlags) showSession() *cobra.Command {
	return &cobra.Command{
		Use:   "show SESSION",
		Short: "Show one session",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			var one access.SessionInfo
			if err := client.get(cmd.Context(), "/api/v1/sessions/"+url.PathEscape(args[0]), &one); err != nil {
				return err
			}
			return f.settings.print(cmd, one, func(out io.Writer) error {
				return fields(out, "session", one.ID, "user", one.User, "name", nameOf(&one), "issuer", one.Issuer,
					"since", moment(one.Created), "last used", moment(one.Used), "expires", moment(one.Expires), "open here", strconv.Itoa(one.Open),
					"authenticated", moment(one.Login.Time), "acr", one.Login.ACR, "amr", strings.Join(one.Login.AMR, " "),
					"origins", strings.Join(one.Origins, " "))
			})
		},
	}
}

func (f *adminFlags) revokeSession() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "revoke SESSION --why TEXT",
		Short: "End one session, on every replica",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			return f.endSession(cmd, client, args[0], why)
		},
	}
	whyFlag(cmd, &why)
	return cmd
}

func (f *adminFlags) endSession(cmd *cobra.Command, client *adminClient, id, why string) error {
	var done admin.SessionRevoked
	if err := client.post(cmd.Context(), "/api/v1/sessions/"+url.PathEscape(id)+"/revoke", deed(why), &done); err != nil {
		return err
	}
	return f.settings.print(cmd, done, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "session %s has ended\n", printable(done.Session))
		return err
	})
}

// nameOf is what a person goes by.
func nameOf(one *access.SessionInfo) string {
	if one.Email != "" {
		return one.Email
	}
	return one.Name
}
