package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/audit"
)

func verifyLogCommand(s *settings) *cobra.Command {
	var key, head string
	cmd := &cobra.Command{
		Use:   "verify-log FILE…",
		Short: "Find out whether audit files were tampered with",
		Long: "Follow the chain through audit files: every record names the hash of the one before it. What was removed,\n" +
			"changed or moved is named by file and line. Give all files of a log, also the rotated and compressed ones, in\n" +
			"any order. Without --public-key only clumsy changes are found: whoever can write the files can also make a\n" +
			"chain that fits. What was cut off at the end is found with --head only, or by the records that come later.\n\n" +
			"The exit code is 1 if anything speaks of tampering.",
		Example: "  doorward verify-log --public-key \"$(cat audit.pub)\" /var/log/doorward/audit.jsonl*",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := audit.VerifyOptions{Head: head}
			if key != "" {
				raw, err := base64.RawURLEncoding.DecodeString(key)
				if err != nil || len(raw) != ed25519.PublicKeySize {
					return fmt.Errorf("--public-key %q is no key: print it with doorward audit public-key", key)
				}
				opts.Key = raw
			}
			files, err := audit.Find(args)
			if err != nil {
				return err
			}
			files.Stdin = cmd.InOrStdin()
			found, err := audit.Verify(files, opts)
			if err != nil {
				return err
			}
			if err := s.print(cmd, found, func(out io.Writer) error { return writeVerified(out, found, opts.Key != nil) }); err != nil {
				return err
			}
			if !found.Sound() {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "public-key", "", "verify signatures with this `key`, as doorward audit public-key prints it")
	cmd.Flags().StringVar(&head, "head", "", "demand this `record`, SEQ:HASH, which an earlier run printed as the head")
	return cmd
}

func writeVerified(out io.Writer, found *audit.Verified, withKey bool) error {
	for _, fault := range found.Faults {
		fmt.Fprintf(out, "FAULT  %s: %s\n", printable(fault.Place), fault.Text)
	}
	if more := found.FaultCount - len(found.Faults); more > 0 {
		fmt.Fprintf(out, "FAULT  and %d more\n", more)
	}
	for _, note := range found.Notes {
		fmt.Fprintf(out, "note   %s: %s\n", printable(note.Place), note.Text)
	}
	verdict := "the chain is unbroken"
	if !found.Sound() {
		verdict = "this log was tampered with, or damaged"
	}
	signatures := "; signatures were not looked at, for want of --public-key"
	if withKey {
		signatures = fmt.Sprintf(", %d signatures", found.Signed)
	}
	if found.Erased > 0 {
		signatures += fmt.Sprintf("; %d records were erased", found.Erased)
	}
	_, err := fmt.Fprintf(out, "%s: %d records in %d files%s\nhead %s\n", verdict, found.Records, found.Files, signatures, printable(found.Head))
	return err
}
