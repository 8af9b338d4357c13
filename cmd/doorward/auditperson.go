package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/audit"
)

// personLog is a log in which one person is looked for.
type personLog struct {
	cfg    *config.Config
	files  *audit.Files
	person *audit.Person
	live   []string // the files that doorward may be writing
}

// openPersonLog reads where the log is and whom it is about. Without names it is
// every file that the configuration writes, with what was rotated away from it.
func openPersonLog(s *settings, user string, names []string) (*personLog, error) {
	cfg, err := config.Load(s.config)
	if err != nil {
		return nil, err
	}
	l := &personLog{cfg: cfg}
	if l.files, l.live, err = findAudit(cfg, names); err != nil {
		return nil, err
	}
	l.person, err = audit.NewPerson(user, audit.NewPseudonyms(&cfg.Audit))
	return l, err
}

// findAudit returns the files that were named, or those of the configuration,
// and which of all may be written at this moment.
func findAudit(cfg *config.Config, names []string) (files *audit.Files, live []string, err error) {
	for _, sink := range cfg.Audit.To {
		if sink.File.Path != "" {
			live = append(live, sink.File.Path)
		}
	}
	if len(names) == 0 {
		names = auditFiles(cfg)
	}
	if len(names) == 0 {
		return nil, nil, errors.New("the configuration writes no audit file: name the files")
	}
	files, err = audit.Find(names)
	return files, live, err
}

func auditExportCommand(s *settings) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "export --user PROVIDER:SUB [FILE…]",
		Short: "Print everything the audit files have about one person",
		Long: "Print every record about one person as it stands in the files, one line of JSON each: their requests and\n" +
			"logins, what happened to their sessions, and what administrators and other parties did about them. Without\n" +
			"FILE it looks into every file that the configuration writes, with the rotated and compressed ones.",
		Example: "  doorward audit export --user corp:8f1c2d > alice.jsonl",
		RunE: func(cmd *cobra.Command, names []string) error {
			l, err := openPersonLog(s, user, names)
			if err != nil {
				return err
			}
			if err := l.person.Learn(l.files); err != nil {
				return err
			}
			n, err := l.person.Export(l.files, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d records in %d files\n", n, len(l.files.Names))
			if n == 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "the `person`, PROVIDER:SUB")
	return cmd
}

func auditEraseCommand(s *settings) *cobra.Command {
	var user string
	var yes bool
	cmd := &cobra.Command{
		Use:   "erase --user PROVIDER:SUB [FILE…]",
		Short: "Erase everything the audit files have about one person",
		Long: "Put a signed stub in the place of every record about one person, so that verify-log still finds what anybody\n" +
			"else removed or changed. Without FILE it works on every file that the configuration writes, with the rotated\n" +
			"and compressed ones; Doorward may be running. What went elsewhere before is not reached: receivers, what waits\n" +
			"for them, standard output, backups.\n\n" +
			"Without --yes it counts and changes nothing. It cannot be undone; export first.",
		Example: "  doorward audit erase --user corp:8f1c2d --yes",
		RunE: func(cmd *cobra.Command, names []string) error {
			l, err := openPersonLog(s, user, names)
			if err != nil {
				return err
			}
			if !yes {
				if err := l.person.Learn(l.files); err != nil {
					return err
				}
				n, err := l.person.Export(l.files, io.Discard)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d records in %d files are about %s. Nothing was erased; add --yes.\n", n, len(l.files.Names), printable(user))
				return &exitError{code: exitNo}
			}
			opts := audit.EraseOptions{Live: l.live}
			if !l.cfg.Audit.Key.IsZero() {
				if opts.Key, err = audit.SigningKey(l.cfg.Audit.Key); err != nil {
					return err
				}
			}
			done, err := l.person.Erase(l.files, opts)
			if err != nil {
				return err
			}
			if err := s.print(cmd, done, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%d records in %d files were erased\n", done.Records, done.Files)
				return err
			}); err != nil {
				return err
			}
			if done.Left > 0 {
				return &exitError{code: exitNo, err: fmt.Errorf("%d records of an older version are in a file that is being written and too short to be erased there: "+
					"call again when the file was rotated", done.Left)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "the `person`, PROVIDER:SUB")
	cmd.Flags().BoolVar(&yes, "yes", false, "erase")
	return cmd
}

func auditWhoCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "who PSEUDONYM [FILE…]",
		Short: "Tell whose pseudonym it is that a receiver has",
		Long: "Find out which person, device or administrator a pseudonym stands for, with audit.key and the audit files that have\n" +
			"everything. Nobody is found whose records were erased or deleted.",
		Example: "  doorward audit who p-q3mXzTqk0Vt0r1mD2m0n4A",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(s.config)
			if err != nil {
				return err
			}
			pseudonyms := audit.NewPseudonyms(&cfg.Audit)
			if pseudonyms == nil {
				return errNoAuditKey
			}
			files, _, err := findAudit(cfg, args[1:])
			if err != nil {
				return err
			}
			who, err := pseudonyms.Behind(args[0], files)
			if err != nil {
				return err
			}
			if who == nil {
				return &exitError{code: exitNo, err: fmt.Errorf("no record in %d files has anybody with the pseudonym %s", len(files.Names), printable(args[0]))}
			}
			return s.print(cmd, who, func(out io.Writer) error {
				return fields(out, who.Kind, who.Value, "e-mail", who.Email, "name", who.Name)
			})
		},
	}
}
